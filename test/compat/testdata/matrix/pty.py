import re

from e2b import CommandExitException, NotFoundException, TimeoutException
from e2b.sandbox.commands.command_handle import PtySize

from matrix.harness import case, fails, got, same, until


async def type_in(t, terminal, keys):
    await got(t.sbx.pty.send_stdin(terminal.handle.pid, keys))


def sees(terminal, pattern):
    assert re.search(pattern, terminal.screen), terminal.screen


@case("pty.create", "size, environment, user, working directory")
async def create(t):
    terminal = await t.flavour.terminal(t.sbx, user="root", cwd="/tmp", envs={"MARK": "here"})
    await type_in(t, terminal, b'stty size; echo "<$TERM $LANG $MARK $(whoami) $(pwd)>"; exit\n')
    same((await terminal.wait()).exit_code, 0)
    sees(terminal, rb"20 91\r\n")
    sees(terminal, rb"<xterm-256color C\.UTF-8 here root /tmp>")


@case("pty.create", "exit status")
async def exit_status(t):
    terminal = await t.flavour.terminal(t.sbx)
    await type_in(t, terminal, b"exit 3\n")
    same((await fails(CommandExitException, terminal.wait)).exit_code, 3)


@case("pty.create", "time limit")
async def limited(t):
    terminal = await t.flavour.terminal(t.sbx, timeout=0.7)
    await fails(TimeoutException, terminal.wait)


@case("pty.send_stdin", "keys, Ctrl+C too")
async def send(t):
    terminal = await t.flavour.terminal(t.sbx)
    await type_in(t, terminal, b'sleep 500; echo stat""us $?\n')

    async def runs():
        return await t.sh('pgrep -fx "sleep 500" || true') != ""

    await until("sleep runs", runs)
    await type_in(t, terminal, b"\x03")
    await type_in(t, terminal, b'echo a""fter; exit 0\n')
    await terminal.wait()
    sees(terminal, rb"after\r\n")
    await fails(NotFoundException, lambda: t.sbx.pty.send_stdin(999999, b"x"))


@case("pty.stream_input", "many pieces")
async def stream(t):
    terminal = await t.flavour.terminal(t.sbx)
    await t.flavour.send(t.sbx.pty, terminal.handle.pid, [b"echo pie", 'ce""s; ', b"exit 0\n"])
    await terminal.wait()
    sees(terminal, rb"pieces\r\n")


@case("pty.resize", "the size inside")
async def resize(t):
    await got(t.sbx.files.make_dir(t.path()))
    terminal = await t.flavour.terminal(t.sbx, cwd=t.path())
    # While bash edits a line, it may set the size itself, to what it last read.
    await type_in(t, terminal, b"touch ready; read -r _; stty size; tput cols; exit\n")
    await until("the line is being executed", lambda: t.sbx.files.exists(t.path("ready")))
    await got(t.sbx.pty.resize(terminal.handle.pid, PtySize(rows=41, cols=133)))
    await type_in(t, terminal, b"\n")
    await terminal.wait()
    sees(terminal, rb"41 133\r\n133\r\n")


@case("pty.kill", "running and unknown")
async def kill(t):
    terminal = await t.flavour.terminal(t.sbx)
    assert await got(t.sbx.pty.kill(terminal.handle.pid)) is True
    await fails(CommandExitException, terminal.wait)
    await fails(CommandExitException, lambda: t.sbx.commands.run(f"kill -0 {terminal.handle.pid}"))
    assert await got(t.sbx.pty.kill(999999)) is False


@case("pty.connect", "the terminal goes on")
async def connect(t):
    terminal = await t.flavour.terminal(t.sbx)
    await type_in(t, terminal, b"MARK=kept\n")
    await terminal.close()
    again = await t.flavour.reconnect(t.sbx, terminal.handle.pid)
    await type_in(t, terminal, b'echo "<$MARK>"; exit 6\n')
    same((await fails(CommandExitException, again.wait)).exit_code, 6)
    sees(again, rb"<kept>")
    await fails(NotFoundException, lambda: t.flavour.reconnect(t.sbx, 999999))
