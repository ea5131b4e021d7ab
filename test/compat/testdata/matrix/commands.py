import asyncio

from e2b import (
    AuthenticationException,
    CommandExitException,
    InvalidArgumentException,
    NotFoundException,
    SandboxException,
    TimeoutException,
)
from e2b.envd import rpc

from matrix.harness import case, fails, got, same, until


async def start(t, command, **options):
    return await got(t.sbx.commands.run(command, background=True, **options))


async def listed(t, pid):
    return next((p for p in await got(t.sbx.commands.list()) if p.pid == pid), None)


async def asleep(t, what):
    """Says whether a command of these words runs."""
    return await t.sh(f'pgrep -fx "{what}" || true') != ""


@case("commands.run", "output and exit status")
async def output(t):
    r = await got(t.sbx.commands.run("echo out; echo err >&2"))
    same((r.stdout, r.stderr, r.exit_code), ("out\n", "err\n", 0))


@case("commands.run", "a failure is an error")
async def failure(t):
    e = await fails(CommandExitException, lambda: t.sbx.commands.run("echo out; echo err >&2; exit 3"))
    same((e.stdout, e.stderr, e.exit_code), ("out\n", "err\n", 3))


@case("commands.run", "a death by signal is an error")
async def signalled(t):
    e = await fails(CommandExitException, lambda: t.sbx.commands.run("kill -9 $$"))
    same((e.exit_code, e.error), (-1, "signal: killed"))


@case("commands.run", "unknown command")
async def unknown(t):
    e = await fails(CommandExitException, lambda: t.sbx.commands.run("no-such-program"))
    same(e.exit_code, 127)
    assert "no-such-program: command not found" in e.stderr, e.stderr


@case("commands.run", "output while it runs")
async def streamed(t):
    out, err = [], []

    def on_stdout(s):
        out.append(s)
        return t.sbx.files.write(t.path("go"), "")

    # It goes on only after what it wrote has arrived.
    command = f"echo one; echo two >&2; until [ -e {t.path('go')} ]; do sleep 0.02; done; echo three"
    await got(t.sbx.commands.run(command, on_stdout=on_stdout, on_stderr=err.append))
    same(("".join(out), "".join(err)), ("one\nthree\n", "two\n"))


@case("commands.run", "environment")
async def environment(t):
    same(await t.sh("echo $GREETING $WHO $HOME $USER $LOGNAME"), "hello all /home/user user user\n")
    same(await t.sh("echo $GREETING $WHO", envs={"WHO": "you"}), "hello you\n")


@case("commands.run", "user")
async def user(t):
    same(await t.sh("whoami; id -u"), "user\n1000\n")
    same(await t.sh("whoami; echo ~", user="root"), "root\n/root\n")
    await fails(
        AuthenticationException,
        lambda: t.sbx.commands.run("true", user="nobody-here"),
        "invalid username: 'nobody-here'",
    )


@case("commands.run", "working directory")
async def directory(t):
    await got(t.sbx.files.make_dir(t.path()))
    same(await t.sh("pwd"), "/home/user\n")
    same(await t.sh("pwd", cwd="/tmp"), "/tmp\n")
    same(await t.sh("pwd", cwd=t.path().removeprefix("/home/user/")), t.path() + "\n")
    await fails(
        InvalidArgumentException,
        lambda: t.sbx.commands.run("true", cwd="/nowhere"),
        "cwd '/nowhere' does not exist",
    )


@case("commands.run", "time limit")
async def limited(t):
    await fails(TimeoutException, lambda: t.sbx.commands.run("exec sleep 54321", timeout=0.7))

    async def killed():
        return not await asleep(t, "sleep 54321")

    await until("the command is killed", killed)
    same(await t.sh("echo no limit", timeout=0), "no limit\n")


@case("commands.run", "much output")
async def much(t):
    command = 'head -c 3000000 /dev/zero | tr "\\0" x; head -c 100000 /dev/zero | tr "\\0" y >&2'
    r = await got(t.sbx.commands.run(command))
    assert r.stdout == "x" * 3000000 and r.stderr == "y" * 100000, (len(r.stdout), len(r.stderr))


@case("commands.run", "letters of several bytes")
async def letters(t):
    assert await t.sh("python3 -c \"print('ač€🙂' * 30000)\"") == "ač€🙂" * 30000 + "\n"


@case("commands.run", "several at once")
async def several(t):
    if t.flavour.polls:
        calls = [asyncio.to_thread(t.sbx.commands.run, f"echo {i}") for i in range(10)]
    else:
        calls = [t.sbx.commands.run(f"echo {i}") for i in range(10)]
    same([r.stdout for r in await asyncio.gather(*calls)], [f"{i}\n" for i in range(10)])


@case("commands.run", "in the background")
async def background(t):
    handle = await start(t, "echo started; exec sleep 600")
    assert await listed(t, handle.pid)
    assert await got(handle.kill()) is True
    await fails(CommandExitException, handle.wait)


@case("commands.run", "without keeping the output", needs="retain_output")
async def unretained(t):
    out = []
    r = await got(t.sbx.commands.run("echo out", retain_output=False, on_stdout=out.append))
    same((r.stdout, r.stderr, r.exit_code, out), (None, None, 0, ["out\n"]))


async def killed_during(t):
    """Starts a command in a sandbox of its own, and kills the sandbox."""
    other = await t.create()
    handle = await got(other.commands.run("echo started; exec sleep 600", background=True, timeout=0))
    await got(other.kill())
    return handle


@case("commands.run", "the sandbox is killed meanwhile")
async def sandbox_killed(t):
    handle = await killed_during(t)
    await fails(Exception, handle.wait)


def sees_resets(_):
    """Says whether the SDK takes a reset connection for a sign that the sandbox
    may be gone. Where it does not, the error is the HTTP library's own."""
    return hasattr(rpc, "is_transport_failure")


@case("commands.run", "the error says that the sandbox was killed", needs=sees_resets)
async def sandbox_killed_error(t):
    handle = await killed_during(t)
    await fails(TimeoutException, handle.wait, "sandbox was killed or reached its end of life")


@case("commands.list", "commands and terminals")
async def listing(t):
    handle = await start(t, "exec sleep 600", cwd="/tmp", envs={"MARK": "x"})
    terminal = await t.flavour.terminal(t.sbx)
    p = await listed(t, handle.pid)
    same((p.cmd, p.args, p.cwd, p.envs["MARK"]), ("/bin/bash", ["-l", "-c", "exec sleep 600"], "/tmp", "x"))
    assert await listed(t, terminal.handle.pid)
    await got(handle.kill())
    await got(terminal.handle.kill())

    async def gone():
        return not await listed(t, handle.pid) and not await listed(t, terminal.handle.pid)

    await until("both are gone", gone)


@case("commands.kill", "a running command")
async def kill(t):
    handle = await start(t, "exec sleep 600")
    assert await got(t.sbx.commands.kill(handle.pid)) is True
    await fails(CommandExitException, lambda: t.sbx.commands.run(f"kill -0 {handle.pid}"))
    await fails(CommandExitException, handle.wait)


@case("commands.kill", "an unknown one")
async def kill_unknown(t):
    assert await got(t.sbx.commands.kill(999999)) is False


@case("commands.send_stdin", "text and bytes")
async def send(t):
    handle = await start(t, "head -2", stdin=True)
    await got(t.sbx.commands.send_stdin(handle.pid, "one\n"))
    await got(t.sbx.commands.send_stdin(handle.pid, b"two\n"))
    same((await got(handle.wait())).stdout, "one\ntwo\n")


@case("commands.send_stdin", "unknown command, or without input")
async def send_wrong(t):
    await fails(NotFoundException, lambda: t.sbx.commands.send_stdin(999999, "x"))
    handle = await start(t, "exec sleep 600")
    await fails(
        SandboxException,
        lambda: t.sbx.commands.send_stdin(handle.pid, "x"),
        "stdin not enabled or closed",
    )
    await got(handle.kill())
    same(await t.sh("cat"), "")


@case("commands.close_stdin", "the command reads to the end")
async def close(t):
    handle = await start(t, "cat; echo end", stdin=True)
    await got(t.sbx.commands.send_stdin(handle.pid, "typed\n"))
    await got(t.sbx.commands.close_stdin(handle.pid))
    same((await got(handle.wait())).stdout, "typed\nend\n")
    await fails(NotFoundException, lambda: t.sbx.commands.close_stdin(999999))


@case("commands.stream_input", "many pieces")
async def stream(t):
    handle = await start(t, "head -3 | tr a-z A-Z", stdin=True)
    await t.flavour.send(t.sbx.commands, handle.pid, ["one\ntw", b"o\nthr", "ee\n"])
    same((await got(handle.wait())).stdout, "ONE\nTWO\nTHREE\n")
    await fails(NotFoundException, lambda: t.flavour.send(t.sbx.commands, 999999, ["x"]))


@case("input.send", "one after the other")
async def input_send(t):
    handle = await start(t, "read -r line; echo got $line; read -r line; echo got $line", stdin=True)
    async with t.sbx.commands.stream_input(handle.pid) as pipe:
        await pipe.send("one\n")
        await until("the first is answered", lambda: handle.stdout == "got one\n")
        await pipe.send(b"two\n")
    same((await handle.wait()).stdout, "got one\ngot two\n")


@case("input.close", "the command's input stays open")
async def input_close(t):
    handle = await start(t, "cat", stdin=True)
    pipe = t.sbx.commands.stream_input(handle.pid)
    await pipe.send("one ")
    await pipe.close()
    await fails(SandboxException, lambda: pipe.send("more"))
    await handle.send_stdin("two")
    await handle.close_stdin()
    same((await handle.wait()).stdout, "one two")


@case("commands.connect", "output from then on")
async def connect(t):
    first = await start(t, "read -r line; echo got $line", stdin=True)
    await got(first.disconnect())
    again = await got(t.sbx.commands.connect(first.pid))
    same(again.pid, first.pid)
    await got(t.sbx.commands.send_stdin(first.pid, "it\n"))
    same((await got(again.wait())).stdout, "got it\n")


@case("commands.connect", "two listeners")
async def two(t):
    one = await start(t, "read -r line; echo got $line; exit 4", stdin=True)
    other = await got(t.sbx.commands.connect(one.pid))
    await got(t.sbx.commands.send_stdin(one.pid, "it\n"))
    for handle in (one, other):
        e = await fails(CommandExitException, handle.wait)
        same((e.stdout, e.exit_code), ("got it\n", 4))


@case("commands.connect", "time limit")
async def connect_limited(t):
    first = await start(t, "exec sleep 600")
    again = await got(t.sbx.commands.connect(first.pid, timeout=0.5))
    await fails(TimeoutException, again.wait)
    assert await listed(t, first.pid), "the limit of a listener ended the command"
    await got(first.kill())


@case("commands.connect", "one that has ended")
async def connect_late(t):
    first = await start(t, "exit 5")
    await fails(CommandExitException, first.wait)
    again = await got(t.sbx.commands.connect(first.pid))
    same((await fails(CommandExitException, again.wait)).exit_code, 5)
    await fails(
        NotFoundException,
        lambda: t.sbx.commands.connect(999999),
        "process with pid 999999 not found",
    )


@case("handle.wait", "result")
async def wait(t):
    handle = await start(t, "echo out; echo err >&2")
    r = await got(handle.wait())
    same((r.stdout, r.stderr, r.exit_code), ("out\n", "err\n", 0))


@case("handle.wait", "time limit")
async def wait_limited(t):
    handle = await start(t, "exec sleep 600", timeout=0.7)
    await fails(TimeoutException, handle.wait)

    async def killed():
        return not await listed(t, handle.pid)

    await until("the command is killed", killed)


@case("handle.kill", "running and ended")
async def handle_kill(t):
    handle = await start(t, "exec sleep 600")
    assert await got(handle.kill()) is True
    same((await fails(CommandExitException, handle.wait)).exit_code, -1)
    assert await got(handle.kill()) is False


@case("handle.disconnect", "the command goes on")
async def disconnect(t):
    handle = await start(t, f"until [ -e {t.path('go')} ]; do sleep 0.02; done; touch {t.path('done')}")
    await got(handle.disconnect())
    await got(t.sbx.files.write(t.path("go"), ""))
    await until("the command is done", lambda: t.sbx.files.exists(t.path("done")))


@case("handle.send_stdin", "text")
async def handle_send(t):
    handle = await start(t, "head -1", stdin=True)
    await got(handle.send_stdin("one\n"))
    same((await got(handle.wait())).stdout, "one\n")


@case("handle.close_stdin", "the command reads to the end")
async def handle_close(t):
    handle = await start(t, "cat", stdin=True)
    await got(handle.send_stdin("one"))
    await got(handle.close_stdin())
    same((await got(handle.wait())).stdout, "one")
