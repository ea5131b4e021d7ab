"""What a user of the official Python SDK does first."""

from e2b import (
    AuthenticationException,
    CommandExitException,
    NotFoundException,
    Sandbox,
    SandboxQuery,
    TimeoutException,
)


def fails(kind, do):
    try:
        do()
    except kind as e:
        return e
    raise AssertionError(f"no {kind.__name__}")


sbx = Sandbox.create(metadata={"run": "compat sync"}, envs={"GREETING": "hello"})
try:
    # Commands.
    assert sbx.commands.run('python3 -c "print(1+1)"').stdout == "2\n"
    both = sbx.commands.run("echo out; echo err >&2")
    assert (both.stdout, both.stderr, both.exit_code) == ("out\n", "err\n", 0)
    assert sbx.commands.run("echo $GREETING $WHO", envs={"WHO": "you"}).stdout == "hello you\n"
    assert sbx.commands.run("whoami; pwd").stdout == "user\n/home/user\n"
    assert sbx.commands.run("whoami", user="root").stdout == "root\n"
    assert fails(CommandExitException, lambda: sbx.commands.run("exit 3")).exit_code == 3
    fails(TimeoutException, lambda: sbx.commands.run("sleep 30", timeout=1))
    seen = []
    sbx.commands.run("echo 1; sleep 0.2; echo 2", on_stdout=seen.append)
    assert "".join(seen) == "1\n2\n", seen
    cat = sbx.commands.run("head -1", background=True, stdin=True)
    sbx.commands.send_stdin(cat.pid, "typed\n")
    assert cat.wait().stdout == "typed\n"
    sleeper = sbx.commands.run("sleep 600", background=True)
    assert sbx.commands.kill(sleeper.pid) is True
    assert sbx.commands.kill(999999) is False

    # Files.
    sbx.files.write("notes/a.txt", "first")
    assert sbx.files.read("notes/a.txt") == "first"
    blob = bytes(i % 251 for i in range(300000))
    sbx.files.write("blob", blob)
    assert bytes(sbx.files.read("blob", format="bytes")) == blob
    assert [e.name for e in sbx.files.list("notes")] == ["a.txt"]
    assert sbx.files.make_dir("d/e") is True
    assert sbx.files.make_dir("d/e") is False
    sbx.files.rename("notes/a.txt", "notes/b.txt")
    assert sbx.files.exists("notes/b.txt") and not sbx.files.exists("notes/a.txt")
    sbx.files.remove("notes")
    fails(NotFoundException, lambda: sbx.files.read("notes/b.txt"))
    assert sbx.files.read("/proc/sys/kernel/hostname").strip() == sbx.sandbox_id

    # The sandbox itself.
    info = sbx.get_info()
    assert info.sandbox_id == sbx.sandbox_id and info.metadata == {"run": "compat sync"}
    assert sbx.is_running()
    sbx.set_timeout(900)
    assert sbx.get_info().end_at > info.end_at
    listed = Sandbox.list(query=SandboxQuery(metadata={"run": "compat sync"})).next_items()
    assert [s.sandbox_id for s in listed] == [sbx.sandbox_id]
    assert Sandbox.connect(sbx.sandbox_id).commands.run("echo again").stdout == "again\n"
    fails(NotFoundException, lambda: Sandbox.connect("inosuchsandbox"))
    fails(AuthenticationException, lambda: Sandbox.create(api_key="e2b_" + "0" * 40))
finally:
    assert sbx.kill() is True
assert sbx.is_running() is False
assert Sandbox.kill(sbx.sandbox_id) is False
print("ALL PASSED")
