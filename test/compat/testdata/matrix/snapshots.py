"""Snapshots that are kept, and the sandboxes that are made from them."""

from e2b import SandboxException, SandboxNotFoundException

from matrix.harness import case, fails, got, same
from matrix.lifecycle import asked, boot, counting, sh
from matrix.sandbox import UNKNOWN


def unique(t, sbx):
    """A name that no other client of the server uses."""
    return f"snap-{sbx.sandbox_id}-{t.count}"


async def listed(paginator):
    """All pages of a list."""
    items = []
    while paginator.has_next:
        items += await got(paginator.next_items())
    return items


async def identifiers(paginator):
    return [s.snapshot_id for s in await listed(paginator)]


async def kept(t, sbx, **options):
    """Keeps a snapshot until the case is over."""
    snapshot = await got(sbx.create_snapshot(**options))
    t.snapshots.append(snapshot.snapshot_id)
    return snapshot


@case("sandbox.create_snapshot", "memory, processes and files go on in what is made from it")
async def create_from(t):
    sbx = await t.create(envs={"MARK": "x"})
    pid, before = await counting(sbx), await boot(sbx)
    snapshot = await kept(t, sbx)
    same(snapshot.names, [])
    same(await asked(sbx), (pid, 2))  # the origin has gone on
    for _ in range(2):
        made = await t.create(template=snapshot.snapshot_id, envs={"MARK": "y"})
        same(await asked(made), (pid, 2))
        same(await boot(made), before)
        same(await sh(made, "echo $MARK $E2B_SANDBOX_ID"), f"y {made.sandbox_id}\n")


@case("sandbox.create_snapshot", "under a name, by identifier, outlives its sandbox")
async def named(t):
    kind, sbx = t.flavour.sandbox, await t.create()
    name = unique(t, sbx)
    await got(sbx.files.write("version", "one"))
    first = await kept(t, sbx, name=name)
    await got(sbx.files.write("version", "two"))
    second = await got(kind.create_snapshot(sbx.sandbox_id, name=f"{name}:v2"))
    t.snapshots.append(second.snapshot_id)
    assert first.snapshot_id.endswith(f"/{name}:default"), first.snapshot_id
    assert second.snapshot_id.endswith(f"/{name}:v2"), second.snapshot_id
    assert len(first.names) == 1 and name in first.names[0], first.names
    await got(sbx.kill())
    for template, want in (
        (first.snapshot_id, "one"), (name, "one"), (second.snapshot_id, "two"), (f"{name}:v2", "two"),
    ):
        made = await t.create(template=template)
        same(await got(made.files.read("version")), want)
    await fails(SandboxException, lambda: kind.create(template=f"{name}:v3"), "404")


@case("sandbox.create_snapshot", "the files alone", needs="mode")
async def files_alone(t):
    sbx = await t.create()
    before = await boot(sbx)
    await counting(sbx)
    await got(sbx.files.write("kept", "yes"))
    snapshot = await kept(t, sbx, mode="filesystem")
    made = await t.create(template=snapshot.snapshot_id)
    same(await got(made.files.read("kept")), "yes")
    assert await boot(made) != before
    same(await sh(made, "test -e counter.py && pgrep -x python3 || echo stopped"), "stopped\n")


@case("sandbox.create_snapshot", "of a paused one, of an unknown one")
async def refused(t):
    sbx = await t.create()
    await got(sbx.pause())
    await fails(SandboxException, sbx.create_snapshot, "paused")
    await fails(SandboxNotFoundException, lambda: t.flavour.sandbox.create_snapshot(UNKNOWN))


@case("sandbox.list_snapshots", "of a sandbox, newest first, page by page")
async def lists(t):
    kind, sbx = t.flavour.sandbox, await t.create()
    same(await identifiers(sbx.list_snapshots()), [])
    mine = [(await kept(t, sbx)).snapshot_id for _ in range(3)]
    same(await identifiers(sbx.list_snapshots()), mine[::-1])
    same(await identifiers(kind.list_snapshots(sandbox_id=sbx.sandbox_id, limit=1)), mine[::-1])
    page = kind.list_snapshots(sandbox_id=sbx.sandbox_id, limit=2)
    same([s.snapshot_id for s in await got(page.next_items())], mine[:0:-1])
    assert page.has_next and page.next_token
    everything = await identifiers(kind.list_snapshots())
    assert set(mine) <= set(everything), everything


def filters_by_name(flavour):
    page = flavour.sandbox.list_snapshots(sandbox_id=UNKNOWN)
    return hasattr(page, "name")


@case("sandbox.list_snapshots", "of a name", needs=filters_by_name)
async def lists_names(t):
    kind, sbx = t.flavour.sandbox, await t.create()
    name = unique(t, sbx)
    one, two = await kept(t, sbx, name=name), await kept(t, sbx, name=f"{name}:v2")
    same(await identifiers(kind.list_snapshots(name=name)), [two.snapshot_id, one.snapshot_id])
    same(await identifiers(kind.list_snapshots(name=f"{name}:v2")), [two.snapshot_id])
    same(await identifiers(kind.list_snapshots(name=f"{name}-nobody")), [])


@case("sandbox.delete_snapshot", "once; what was made from it goes on")
async def delete(t):
    kind, sbx = t.flavour.sandbox, await t.create()
    pid = await counting(sbx)
    snapshot = await kept(t, sbx, name=unique(t, sbx))
    made = await t.create(template=snapshot.snapshot_id)
    same(await got(kind.delete_snapshot(snapshot.snapshot_id)), True)
    same(await got(kind.delete_snapshot(snapshot.snapshot_id)), False)
    same(await got(kind.delete_snapshot("nobodys:default")), False)
    same(await identifiers(sbx.list_snapshots()), [])
    await fails(SandboxException, lambda: kind.create(template=snapshot.snapshot_id), "404")
    same(await asked(made), (pid, 2))
    await got(made.pause())
    await got(made.connect())
    same(await asked(made), (pid, 3))


@case("sandbox.pause", "strictly: its daemon answers", needs="strict")
async def strictly(t):
    sbx = await t.create()
    pid = await counting(sbx)
    same(await got(sbx.pause(strict=True)), True)
    await got(sbx.connect())
    same(await asked(sbx), (pid, 2))


@case("sandbox.connect", "a reboot of one whose memory was saved", needs="on_resume")
async def reboot(t):
    sbx = await t.create(envs={"MARK": "x"})
    before = await boot(sbx)
    await counting(sbx)
    await got(sbx.pause())
    await got(t.flavour.sandbox.connect(sbx.sandbox_id, on_resume="reboot"))
    assert await boot(sbx) != before
    same(await sh(sbx, "test -e counter.py && pgrep -x python3 || echo $MARK"), "x\n")


@case("sandbox.create", "the same request twice makes one", needs="idempotency_key")
async def once(t):
    key = f"once-{t.sbx.sandbox_id}"
    one = await t.create(idempotency_key=key)
    same((await t.create(idempotency_key=key)).sandbox_id, one.sandbox_id)
    await fails(SandboxException, lambda: t.flavour.sandbox.create(idempotency_key=key, timeout=77), "409")
