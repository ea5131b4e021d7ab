import asyncio
import datetime
import http.client
import json
import os
import time
import urllib.parse

from e2b import (
    AuthenticationException,
    SandboxException,
    SandboxNotFoundException,
    SandboxQuery,
    SandboxState,
)

from matrix.harness import case, fails, got, same, until

UNKNOWN = "iaaaaaaaaaaaaaaaaaaaa"


def ask(url, host, method, headers, body):
    """Makes a request to a host name that only the server knows: the connection
    goes where the URL points."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        target = parts.path + ("?" + parts.query if parts.query else "")
        connection.request(method, target, body=body, headers={"Host": host, **headers})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


async def request(url, host, method="GET", headers=None, body=None):
    return await asyncio.to_thread(ask, url, host, method, headers or {}, body)


async def asked(t, url, **options):
    """Asks the sandbox's own host name for one of the SDK's URLs, which name the
    server only."""
    return await request(url, t.sbx.get_host(49983), **options)


def form(name, content):
    """A form with one file, as a browser would send it."""
    lines = ["--cut", f'Content-Disposition: form-data; name="file"; filename="{name}"', "", content, "--cut--", ""]
    headers = {"Content-Type": "multipart/form-data; boundary=cut"}
    return {"method": "POST", "headers": headers, "body": "\r\n".join(lines)}


def left(info):
    return info.end_at.timestamp() - time.time()


@case("sandbox.create", "metadata, environment, timeout")
async def create(t):
    sbx = await t.create(metadata={"run": "ä b"}, envs={"MARK": "x"}, timeout=77)
    info = await got(sbx.get_info())
    same(info.metadata, {"run": "ä b"})
    same(round((info.end_at - info.started_at).total_seconds()), 77)
    same((await got(sbx.commands.run("echo $MARK"))).stdout, "x\n")


@case("sandbox.create", "not secured, without internet")
async def create_open(t):
    sbx = await t.create(secure=False, allow_internet_access=False)
    assert (await got(sbx.get_info())).allow_internet_access is False
    await got(sbx.files.write("a", "x"))
    same((await got(sbx.commands.run("cat a"))).stdout, "x")


@case("sandbox.create", "refused")
async def create_refused(t):
    kind = t.flavour.sandbox
    await fails(AuthenticationException, lambda: kind.create(api_key="e2b_" + "0" * 40), "Invalid API key")
    await fails(SandboxException, lambda: kind.create("no-such-template"), "no-such-template")


@case("sandbox.connect", "by identifier and again")
async def connect(t):
    await got(t.sbx.files.write(t.path("a"), "same"))
    other = await got(t.flavour.sandbox.connect(t.sbx.sandbox_id))
    same(await got(other.files.read(t.path("a"))), "same")
    again = await got(other.connect(timeout=700))
    same(await got(again.files.read(t.path("a"))), "same")
    assert left(await got(t.sbx.get_info())) > 650
    await fails(SandboxNotFoundException, lambda: t.flavour.sandbox.connect(UNKNOWN))


@case("sandbox.list", "by metadata, page by page")
async def listing(t):
    kind, metadata = t.flavour.sandbox, {"run": t.sbx.sandbox_id}
    both = sorted([(await t.create(metadata=metadata)).sandbox_id for _ in range(2)])
    query = SandboxQuery(metadata=metadata)
    same(sorted(s.sandbox_id for s in await got(kind.list(query=query).next_items())), both)
    pages, seen = kind.list(query=query, limit=1), []
    while pages.has_next:
        page = await got(pages.next_items())
        same(len(page), 1)
        seen.append(page[0].sandbox_id)
    same(sorted(seen), both)
    for state, count in ((SandboxState.PAUSED, 0), (SandboxState.RUNNING, 2)):
        query = SandboxQuery(metadata=metadata, state=[state])
        same(len(await got(kind.list(query=query).next_items())), count)


@case("sandbox.list", "in order", needs="order")
async def listing_ordered(t):
    metadata = {"run": t.sbx.sandbox_id + "-order"}
    ids = [(await t.create(metadata=metadata)).sandbox_id for _ in range(2)]

    async def ordered(order):
        pages = t.flavour.sandbox.list(query=SandboxQuery(metadata=metadata), order=order)
        return [s.sandbox_id for s in await got(pages.next_items())]

    same(await ordered("asc"), ids)
    same(await ordered("desc"), ids[::-1])


@case("sandbox.get_info", "of one, by itself and by identifier")
async def get_info(t):
    info = await got(t.sbx.get_info())
    same((info.sandbox_id, info.name, info.state), (t.sbx.sandbox_id, "base", SandboxState.RUNNING))
    assert info.cpu_count >= 1 and info.memory_mb >= 128 and info.envd_version and info.template_id, info
    same((await got(t.flavour.sandbox.get_info(t.sbx.sandbox_id))).started_at, info.started_at)
    await fails(SandboxNotFoundException, lambda: t.flavour.sandbox.get_info(UNKNOWN))


@case("sandbox.get_metrics", "of a running one, by itself and by identifier")
async def get_metrics(t):
    metrics = []

    async def measured():
        metrics[:] = await got(t.sbx.get_metrics())
        return len(metrics) > 0

    await until("there is a metric", measured)
    m, now = metrics[-1], datetime.datetime.now(datetime.timezone.utc)
    assert now - datetime.timedelta(seconds=20) < m.timestamp <= now, m
    assert m.cpu_count >= 1 and 0 <= m.cpu_used_pct <= 100, m
    assert 0 < m.mem_used < m.mem_total and 0 <= m.disk_used < m.disk_total, m
    assert len(await got(t.flavour.sandbox.get_metrics(t.sbx.sandbox_id))) >= len(metrics)
    await fails(SandboxException, lambda: t.flavour.sandbox.get_metrics(UNKNOWN))


@case("sandbox.get_metrics", "from one moment to another")
async def get_metrics_between(t):
    start, metrics = datetime.datetime.now(datetime.timezone.utc), []

    async def measured():
        metrics[:] = await got(t.sbx.get_metrics(start=start))
        return len(metrics) > 0

    await until("there is a metric", measured)
    assert metrics[0].timestamp > start - datetime.timedelta(seconds=1), metrics
    hour = datetime.timedelta(hours=1)
    same(await got(t.sbx.get_metrics(start=start - 2 * hour, end=start - hour)), [])


@case("sandbox.get_metrics", "of a paused one")
async def get_metrics_paused(t):
    other = await t.create()

    async def measured():
        return len(await got(other.get_metrics())) > 0

    await until("there is a metric", measured)
    await got(other.pause())
    assert await measured()


@case("sandbox.is_running", "before and after its end")
async def is_running(t):
    other = await t.create()
    assert await got(other.is_running()) is True
    await got(other.kill())
    assert await got(other.is_running()) is False


@case("sandbox.set_timeout", "longer and shorter")
async def set_timeout(t):
    other = await t.create(timeout=60)
    await got(other.set_timeout(300))
    assert left(await got(other.get_info())) > 280
    await got(t.flavour.sandbox.set_timeout(other.sandbox_id, 30))
    assert left(await got(other.get_info())) <= 30
    await got(other.set_timeout(1))

    async def ended():
        return not await got(other.is_running())

    await until("the sandbox ends", ended)
    await fails(SandboxNotFoundException, lambda: t.flavour.sandbox.set_timeout(UNKNOWN, 1))


@case("sandbox.kill", "once and twice")
async def kill(t):
    one, two = await t.create(), await t.create()
    assert await got(one.kill()) is True
    assert await got(t.flavour.sandbox.kill(one.sandbox_id)) is False
    assert await got(t.flavour.sandbox.kill(two.sandbox_id)) is True
    await fails(SandboxNotFoundException, one.get_info)
    await fails(SandboxNotFoundException, lambda: t.flavour.sandbox.connect(one.sandbox_id))


@case("sandbox.kill", "at the end of a with block")
async def kill_within(t):
    other = await t.create()

    async def use(same_one):
        assert await got(same_one.is_running()) is True

    await t.flavour.within(other, use)
    assert await got(other.is_running()) is False


@case("sandbox.get_host", "a server in the sandbox")
async def get_host(t):
    host = t.sbx.get_host(8123)
    assert host.startswith(f"8123-{t.sbx.sandbox_id}."), host
    command = "exec python3 -m http.server 8123 --bind 127.0.0.1"
    server = await got(t.sbx.commands.run(command, background=True, cwd="/etc"))

    async def answers():
        return (await request(os.environ["E2B_API_URL"] + "/hostname", host))[0] == 200

    await until("the server answers", answers)
    await got(server.kill())


@case("sandbox.download_url", "signed")
async def download(t):
    await got(t.sbx.files.write(t.path("a b+c"), "content"))
    same(await asked(t, t.sbx.download_url(t.path("a b+c"))), (200, "content"))
    url = t.sbx.download_url(t.path("a b+c"), use_signature_expiration=60)
    same(await asked(t, url), (200, "content"))
    await got(t.sbx.files.write("case-url", "of root", user="root"))
    same(await asked(t, t.sbx.download_url("case-url", user="root")), (200, "of root"))


@case("sandbox.download_url", "expired, changed, unsigned")
async def download_refused(t):
    await got(t.sbx.files.write(t.path("a"), "content"))

    async def refused(url, message):
        status, body = await asked(t, url)
        same((status, json.loads(body)), (401, {"code": 401, "message": message}))

    late = t.sbx.download_url(t.path("a"), use_signature_expiration=-10)
    await refused(late, "signature is already expired")
    base, _, query = t.sbx.download_url(t.path("a")).partition("?")
    values = {**dict(urllib.parse.parse_qsl(query)), "path": "/etc/passwd"}
    await refused(f"{base}?{urllib.parse.urlencode(values)}", "invalid signature")
    del values["signature"]
    await refused(f"{base}?{urllib.parse.urlencode(values)}", "missing signature query parameter")


@case("sandbox.upload_url", "signed")
async def upload(t):
    status, answer = await asked(t, t.sbx.upload_url("up.txt", user="root"), **form("ignored", "content"))
    same((status, json.loads(answer)), (200, [{"name": "up.txt", "path": "/root/up.txt", "type": "file"}]))
    same(await got(t.sbx.files.read("up.txt", user="root")), "content")
    url = t.sbx.upload_url(t.path("raw"), use_signature_expiration=60)
    plain = {"Content-Type": "application/octet-stream"}
    same((await asked(t, url, method="POST", headers=plain, body="raw"))[0], 200)
    same(await got(t.sbx.files.read(t.path("raw"))), "raw")


@case("sandbox.upload_url", "without a path, expired")
async def upload_named(t):
    same((await asked(t, t.sbx.upload_url(""), **form(t.path("named"), "content")))[0], 200)
    same(await got(t.sbx.files.read(t.path("named"))), "content")
    url = t.sbx.upload_url(t.path("late"), use_signature_expiration=-10)
    same((await asked(t, url, **form("ignored", "content")))[0], 401)
    assert await got(t.sbx.files.exists(t.path("late"))) is False
