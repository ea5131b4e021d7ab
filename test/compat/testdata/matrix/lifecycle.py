"""What pausing, resuming and forking keep, and what a paused sandbox answers."""

import os
import time

from e2b import SandboxException, SandboxNotFoundException, SandboxQuery, SandboxState

import e2b.sandbox.sandbox_api as declared
from matrix.harness import case, fails, got, same, until
from matrix.sandbox import UNKNOWN, left, request

# A process that counts in its memory how often it was asked.
COUNTER = """
import os
count = 0
os.mkfifo("ask"), os.mkfifo("answer")
open("ready", "w").close()
while True:
    open("ask").read()
    count += 1
    with open("answer", "w") as f:
        f.write(f"{os.getpid()} {count}")
"""


async def sh(sbx, command, **options):
    return (await got(sbx.commands.run(command, **options))).stdout


async def counting(sbx):
    """Starts the counter and returns what it says when asked first."""
    await got(sbx.files.write("counter.py", COUNTER))
    await sh(sbx, "(setsid python3 counter.py >/dev/null 2>&1 </dev/null &) ; until [ -e ready ]; do sleep 0.02; done")
    pid, count = await asked(sbx)
    same(count, 1)
    return pid


async def asked(sbx):
    pid, count = (await sh(sbx, "echo > ask && cat answer", timeout=20)).split()
    return int(pid), int(count)


async def boot(sbx):
    return await sh(sbx, "cat /proc/sys/kernel/random/boot_id")


async def state(sbx):
    return (await got(sbx.get_info())).state


async def comes_to_pause(sbx):
    async def paused():
        return await state(sbx) == SandboxState.PAUSED

    await until("the sandbox is paused", paused)


def lifecycle(info):
    return dict(info.lifecycle)


async def listed(t, metadata, *states, **options):
    query = SandboxQuery(metadata=metadata, state=list(states))
    pages, seen = t.flavour.sandbox.list(query=query, **options), []
    while pages.has_next:
        seen += [(s.sandbox_id, s.state) for s in await got(pages.next_items())]
    return sorted(seen)


async def kept(t, sbx, pause):
    """Pauses and resumes, and looks whether everything is as it was."""
    pid, before = await counting(sbx), await boot(sbx)
    same(await pause(), True)
    same(await state(sbx), SandboxState.PAUSED)
    other = await got(t.flavour.sandbox.connect(sbx.sandbox_id))
    same(await state(sbx), SandboxState.RUNNING)
    same(await asked(other), (pid, 2))
    same(await asked(sbx), (pid, 3))  # the old object has the right token still
    same(await boot(sbx), before)
    same(await sh(other, "echo $MARK"), "x\n")


async def dropped(t, pause):
    """Pauses without memory and resumes, and looks at what is left."""
    sbx = await t.create(envs={"MARK": "x"})
    await counting(sbx)
    before = await boot(sbx)
    await got(sbx.files.write("kept", "kept"))
    await pause(sbx)
    await got(sbx.connect())
    same(await got(sbx.files.read("kept")), "kept")
    same(await sh(sbx, "pgrep -fx 'python3 counter.py' || echo none"), "none\n")
    same(await sh(sbx, "echo $MARK"), "x\n")
    assert await boot(sbx) != before


@case("sandbox.pause", "memory, processes, files and environment are kept")
async def pause_keeps(t):
    sbx = await t.create(envs={"MARK": "x"})

    async def pause():
        return await got(sbx.pause())

    await kept(t, sbx, pause)


@case("sandbox.pause", "by identifier, again, an unknown one")
async def pause_again(t):
    kind, sbx = t.flavour.sandbox, await t.create()
    same(await got(kind.pause(sbx.sandbox_id)), True)
    same(await got(kind.pause(sbx.sandbox_id)), False)
    same(await got(sbx.pause()), False)
    await fails(SandboxNotFoundException, lambda: kind.pause(UNKNOWN))


@case("sandbox.pause", "without memory", needs="keep_memory")
async def pause_files(t):
    async def pause(sbx):
        same(await got(sbx.pause(keep_memory=False)), True)

    await dropped(t, pause)


@case("sandbox.pause", "without memory, as a mode", needs="mode")
async def pause_mode(t):
    async def pause(sbx):
        same(await got(sbx.pause(mode="filesystem")), True)

    await dropped(t, pause)


@case("sandbox.beta_pause", "memory, processes, files and environment are kept")
async def beta_pause(t):
    sbx = await t.create(envs={"MARK": "x"})

    async def pause():
        return await got(sbx.beta_pause())

    await kept(t, sbx, pause)


@case("sandbox.connect", "a paused one, for a time")
async def connect_paused(t):
    sbx = await t.create(timeout=60)
    await got(sbx.pause())
    await got(sbx.connect(timeout=500))
    assert 450 < left(await got(sbx.get_info())) <= 500
    await got(sbx.connect(timeout=50))  # never shortens
    assert left(await got(sbx.get_info())) > 450


@case("sandbox.connect", "a command of before the pause")
async def connect_command(t):
    sbx = await t.create()
    handle = await got(sbx.commands.run("read line; echo got $line", background=True, stdin=True))
    await got(handle.disconnect())
    await got(sbx.pause())
    await got(sbx.connect())
    assert handle.pid in [p.pid for p in await got(sbx.commands.list())]
    again = await got(sbx.commands.connect(handle.pid))
    await got(sbx.commands.send_stdin(handle.pid, "it\n"))
    same((await got(again.wait())).stdout, "got it\n")


@case("sandbox.connect", "a reboot", needs="on_resume")
async def connect_reboot(t):
    async def pause(sbx):
        same(await got(sbx.pause(mode="filesystem")), True)
        await got(t.flavour.sandbox.connect(sbx.sandbox_id, on_resume="reboot"))

    await dropped(t, pause)


@case("sandbox.create", "paused at the end of its time", needs="lifecycle")
async def create_pausing(t):
    sbx = await t.create(timeout=3, envs={"MARK": "x"}, lifecycle={"on_timeout": "pause"})
    pid = await counting(sbx)
    await comes_to_pause(sbx)
    await got(sbx.connect(timeout=60))
    same(await asked(sbx), (pid, 2))
    same(lifecycle(await got(sbx.get_info())), {"on_timeout": "pause", "auto_resume": False})
    await got(sbx.set_timeout(1))  # it is paused again, not killed
    await comes_to_pause(sbx)


@case("sandbox.create", "paused without memory at the end of its time", needs=lambda _: hasattr(declared, "SandboxOnTimeoutPause"))
async def create_pausing_files(t):
    on_timeout = {"action": "pause", "keep_memory": False}
    sbx = await t.create(lifecycle={"on_timeout": on_timeout})
    before = await boot(sbx)
    await got(sbx.files.write("kept", "kept"))
    await got(sbx.set_timeout(1))
    await comes_to_pause(sbx)
    await got(sbx.connect())
    same(await got(sbx.files.read("kept")), "kept")
    assert await boot(sbx) != before


@case("sandbox.create", "resumed by what is sent to it", needs="lifecycle")
async def create_waking(t):
    sbx = await t.create(lifecycle={"on_timeout": "pause", "auto_resume": True})
    same(lifecycle(await got(sbx.get_info())), {"on_timeout": "pause", "auto_resume": True})
    pid = await counting(sbx)
    await got(sbx.pause())
    same(await asked(sbx), (pid, 2))  # a call of the SDK is enough
    server = await got(sbx.commands.run("exec python3 -m http.server 8123", background=True, cwd="/etc"))
    url, host = os.environ["E2B_API_URL"] + "/hostname", sbx.get_host(8123)

    async def answers():
        return (await request(url, host))[0] == 200

    await until("the server answers", answers)
    await got(server.disconnect())
    await got(sbx.pause())
    same((await request(url, host))[0], 200)  # and so is any request
    same(await state(sbx), SandboxState.RUNNING)
    same(await asked(sbx), (pid, 3))


@case("sandbox.list", "paused and running, page by page")
async def listing_states(t):
    metadata = {"run": t.sbx.sandbox_id + "-states"}
    ids = [(await t.create(metadata=metadata)).sandbox_id for _ in range(3)]
    for paused in ids[:2]:
        await got(t.flavour.sandbox.pause(paused))
    asleep = sorted((i, SandboxState.PAUSED) for i in ids[:2])
    awake = [(ids[2], SandboxState.RUNNING)]
    same(await listed(t, metadata, SandboxState.PAUSED), asleep)
    same(await listed(t, metadata, SandboxState.PAUSED, limit=1), asleep)
    same(await listed(t, metadata, SandboxState.RUNNING), awake)
    same(await listed(t, metadata, SandboxState.RUNNING, SandboxState.PAUSED, limit=2), sorted(asleep + awake))
    pages = t.flavour.sandbox.list(query=SandboxQuery(metadata=metadata))
    same(sorted(s.sandbox_id for s in await got(pages.next_items())), sorted(ids))  # both, if not asked for either


@case("sandbox.get_info", "of a paused one")
async def get_info_paused(t):
    sbx = await t.create(metadata={"a": "b"})
    before = await got(sbx.get_info())
    await got(sbx.pause())
    info = await got(t.flavour.sandbox.get_info(sbx.sandbox_id))
    same((info.state, info.metadata, info.started_at), (SandboxState.PAUSED, {"a": "b"}, before.started_at))
    assert info.end_at.timestamp() <= time.time() + 1, info.end_at


@case("sandbox.is_running", "of a paused one")
async def is_running_paused(t):
    sbx = await t.create()
    await got(sbx.pause())
    assert await got(sbx.is_running()) is False
    await fails(SandboxException, lambda: sbx.commands.run("true"))
    assert await state(sbx) == SandboxState.PAUSED  # it has woken of neither
    await got(sbx.connect())
    assert await got(sbx.is_running()) is True


@case("sandbox.set_timeout", "of a paused one")
async def set_timeout_paused(t):
    sbx = await t.create()
    await got(sbx.pause())
    await fails(SandboxNotFoundException, lambda: sbx.set_timeout(60))
    assert await state(sbx) == SandboxState.PAUSED


@case("sandbox.kill", "a paused one")
async def kill_paused(t):
    sbx = await t.create()
    await got(sbx.pause())
    assert await got(sbx.kill()) is True
    assert await got(sbx.kill()) is False
    await fails(SandboxNotFoundException, sbx.get_info)
    await fails(SandboxNotFoundException, sbx.connect)


@case("sandbox.fork", "copies with memory, each on its own")
async def fork(t):
    sbx = await t.create(timeout=100, envs={"MARK": "x"}, metadata={"a": "b"})
    pid, end = await counting(sbx), (await got(sbx.get_info())).end_at
    copies = await got(sbx.fork(count=2, timeout=200))
    t.others += copies
    same(len({sbx.sandbox_id, *(c.sandbox_id for c in copies)}), 3)
    for copy in copies:
        same(await asked(copy), (pid, 2))
        same(await sh(copy, "echo $MARK $E2B_SANDBOX_ID; echo only here > mine"), f"x {copy.sandbox_id}\n")
        info = await got(copy.get_info())
        same(info.metadata, {"a": "b"})
        assert 150 < left(info) <= 200
    same(await asked(sbx), (pid, 2))
    assert await got(sbx.files.exists("mine")) is False
    same((await got(sbx.get_info())).end_at, end)


@case("sandbox.fork", "by identifier, a paused one, an unknown one")
async def fork_refused(t):
    kind, sbx = t.flavour.sandbox, await t.create()
    [copy] = await got(kind.fork(sbx.sandbox_id))
    t.others.append(copy)
    assert await got(copy.is_running()) is True
    await got(sbx.pause())
    await fails(SandboxException, lambda: kind.fork(sbx.sandbox_id), "paused")
    await fails(SandboxNotFoundException, lambda: kind.fork(UNKNOWN))
