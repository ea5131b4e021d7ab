import io
import time

from e2b import (
    AuthenticationException,
    FileNotFoundException,
    FilesystemEventType,
    FileType,
    InvalidArgumentException,
    NotFoundException,
    SandboxException,
)

from matrix.harness import case, fails, got, same, until

BLOB = bytes(i % 251 for i in range(300_000))


def said(watch):
    return [f"{e.type.value} {e.name}" for e in watch.events]


async def sees(watch, *wanted):
    async def seen():
        await watch.look()
        return all(w in said(watch) for w in wanted)

    try:
        await until(", ".join(wanted), seen)
    except AssertionError as e:
        raise AssertionError(f"{e}; seen: {said(watch)}") from e


@case("files.read", "text")
async def read_text(t):
    await got(t.sbx.files.write(t.path("a"), "grüße\n"))
    same(await got(t.sbx.files.read(t.path("a"))), "grüße\n")


@case("files.read", "bytes")
async def read_bytes(t):
    await got(t.sbx.files.write(t.path("a"), BLOB))
    assert bytes(await got(t.sbx.files.read(t.path("a"), format="bytes"))) == BLOB


@case("files.read", "stream")
async def read_stream(t):
    await got(t.sbx.files.write(t.path("a"), BLOB))
    stream = await got(t.sbx.files.read(t.path("a"), format="stream"))
    assert await t.flavour.collect(stream) == BLOB


@case("files.read", "compressed")
async def read_compressed(t):
    await got(t.sbx.files.write(t.path("a"), BLOB))
    assert bytes(await got(t.sbx.files.read(t.path("a"), format="bytes", gzip=True))) == BLOB


@case("files.read", "empty file")
async def read_empty(t):
    await got(t.sbx.files.write(t.path("a"), ""))
    same(await got(t.sbx.files.read(t.path("a"))), "")
    same(len(await got(t.sbx.files.read(t.path("a"), format="bytes"))), 0)


@case("files.read", "file of the kernel")
async def read_kernel(t):
    same(await got(t.sbx.files.read("/proc/sys/kernel/hostname")), t.sbx.sandbox_id + "\n")


@case("files.read", "as another user")
async def read_user(t):
    await t.sh("echo secret > /root/only && chmod 600 /root/only", user="root")
    same(await got(t.sbx.files.read("only", user="root")), "secret\n")
    await fails(AuthenticationException, lambda: t.sbx.files.read("only", user="nobody-here"))


@case("files.read", "missing file, directory")
async def read_missing(t):
    missing = t.path("none")
    await fails(FileNotFoundException, lambda: t.sbx.files.read(missing), f"path '{missing}' does not exist")
    await fails(NotFoundException, lambda: t.sbx.files.read(missing, format="stream"))
    await fails(InvalidArgumentException, lambda: t.sbx.files.read("/tmp"), "path '/tmp' is a directory")


@case("files.write", "text, with its directories")
async def write_text(t):
    info = await got(t.sbx.files.write(t.path("d/e/a"), "first, and longer"))
    same((info.name, info.type, info.path), ("a", FileType.FILE, t.path("d/e/a")))
    await got(t.sbx.files.write(t.path("d/e/a"), "second"))
    same(await got(t.sbx.files.read(t.path("d/e/a"))), "second")
    same(await t.sh('stat -c "%U %G %a" a .', cwd=t.path("d/e")), "user user 644\nuser user 755\n")


@case("files.write", "relative to the home directory")
async def write_relative(t):
    same((await got(t.sbx.files.write("case-home/a", "1"))).path, "/home/user/case-home/a")
    same((await got(t.sbx.files.write("~/case-home/b", "2"))).path, "/home/user/case-home/b")
    same(await t.sh("cat case-home/*"), "12")


@case("files.write", "bytes")
async def write_bytes(t):
    await got(t.sbx.files.write(t.path("a"), BLOB))
    same(await t.sh("stat -c %s a", cwd=t.path()), "300000\n")
    assert bytes(await got(t.sbx.files.read(t.path("a"), format="bytes"))) == BLOB


@case("files.write", "stream")
async def write_stream(t):
    await got(t.sbx.files.write(t.path("a"), io.BytesIO(b"one " + BLOB + b" two")))
    same(await t.sh(f"stat -c %s {t.path('a')}; tail -c 4 {t.path('a')}"), "300008\n two")


@case("files.write", "pieces", needs=lambda flavour: flavour.takes_pieces())
async def write_pieces(t):
    await got(t.sbx.files.write(t.path("a"), t.flavour.pieces(b"one ", BLOB, b" two")))
    same(await t.sh(f"stat -c %s {t.path('a')}; tail -c 4 {t.path('a')}"), "300008\n two")


@case("files.write", "as application/octet-stream")
async def write_octets(t):
    await got(t.sbx.files.write(t.path("a"), "plain", use_octet_stream=True))
    same(await got(t.sbx.files.read(t.path("a"))), "plain")


@case("files.write", "compressed")
async def write_compressed(t):
    await got(t.sbx.files.write(t.path("a"), "x" * 100_000, gzip=True))
    same(await got(t.sbx.files.read(t.path("a"))), "x" * 100_000)


@case("files.write", "as another user")
async def write_user(t):
    same((await got(t.sbx.files.write("case-root/a", "x", user="root"))).path, "/root/case-root/a")
    same(await t.sh('stat -c "%U %a" /root/case-root/a', user="root"), "root 644\n")


@case("files.write", "metadata")
async def write_metadata(t):
    lower = {"kind": "report", "page-count": "3"}
    info = await got(t.sbx.files.write(t.path("a"), "x", metadata={"Kind": "report", "page-count": "3"}))
    same(info.metadata, lower)
    same((await got(t.sbx.files.get_info(t.path("a")))).metadata, lower)
    same((await got(t.sbx.files.list(t.path())))[0].metadata, lower)
    same((await got(t.sbx.files.rename(t.path("a"), t.path("b")))).metadata, lower)
    await t.sh(f"python3 -c 'import os; os.setxattr(\"{t.path('b')}\", \"user.e2b.more\", b\"m\")'")
    same((await got(t.sbx.files.get_info(t.path("b")))).metadata, {**lower, "more": "m"})
    await got(t.sbx.files.write(t.path("b"), "y"))
    assert not (await got(t.sbx.files.get_info(t.path("b")))).metadata, "a new upload keeps the old metadata"


@case("files.write", "over a directory")
async def write_directory(t):
    await fails(InvalidArgumentException, lambda: t.sbx.files.write("/tmp", "x"), "path is a directory: /tmp")


@case("files.write_files", "several at once")
async def write_files(t):
    some = [{"path": t.path("m/1"), "data": "one"}, {"path": t.path("m/2"), "data": BLOB}]
    same([i.path for i in await got(t.sbx.files.write_files(some))], [t.path("m/1"), t.path("m/2")])
    same(await t.sh("cat m/1; stat -c %s m/2", cwd=t.path()), "one300000\n")
    same(await got(t.sbx.files.write_files([])), [])


@case("files.write_files", "as application/octet-stream, compressed")
async def write_files_compressed(t):
    some = [{"path": t.path("1"), "data": "one"}, {"path": t.path("2"), "data": io.BytesIO(b"two")}]
    await got(t.sbx.files.write_files(some, use_octet_stream=True, gzip=True))
    same(await t.sh("cat 1 2", cwd=t.path()), "onetwo")


@case("files.list", "what there is to know of entries")
async def listing(t):
    await got(t.sbx.files.write(t.path("b.txt"), "four"))
    await t.sh("mkdir a && chmod 700 a && chmod 640 b.txt", cwd=t.path())
    a, b = await got(t.sbx.files.list(t.path()))
    same((a.name, a.type, a.path, a.permissions), ("a", FileType.DIR, t.path("a"), "drwx------"))
    same((b.name, b.type, b.path, b.permissions), ("b.txt", FileType.FILE, t.path("b.txt"), "-rw-r-----"))
    same((b.size, b.mode, b.owner, b.group), (4, 0o640, "user", "user"))
    assert abs(b.modified_time.timestamp() - time.time()) < 60, b.modified_time


@case("files.list", "depth")
async def depth(t):
    await t.sh(f"mkdir -p {t.path('a/b/c')} && touch {t.path('a/b/f')} {t.path('z')}")

    async def names(**options):
        return [e.path.removeprefix(t.path() + "/") for e in await got(t.sbx.files.list(t.path(), **options))]

    same(await names(), ["a", "z"])
    same(await names(depth=2), ["a", "a/b", "z"])
    same(await names(depth=9), ["a", "a/b", "a/b/c", "a/b/f", "z"])
    await fails(InvalidArgumentException, lambda: t.sbx.files.list(t.path(), depth=0))


@case("files.list", "missing directory, file")
async def list_missing(t):
    await fails(FileNotFoundException, lambda: t.sbx.files.list(t.path("none")))
    await fails(InvalidArgumentException, lambda: t.sbx.files.list("/etc/passwd"), "path is not a directory")


@case("files.exists", "file, directory, nothing")
async def exists(t):
    await got(t.sbx.files.write(t.path("a"), ""))
    for path, there in ((t.path("a"), True), (t.path(), True), (t.path("b"), False)):
        assert await got(t.sbx.files.exists(path)) is there, path


@case("files.get_info", "file, directory, nothing")
async def get_info(t):
    await got(t.sbx.files.write(t.path("a"), "four"))
    f = await got(t.sbx.files.get_info(t.path("a")))
    same(
        (f.name, f.type, f.path, f.size, f.mode, f.permissions, f.owner, f.group, f.symlink_target),
        ("a", FileType.FILE, t.path("a"), 4, 0o644, "-rw-r--r--", "user", "user", None),
    )
    d = await got(t.sbx.files.get_info(t.path()))
    same((d.type, d.mode, d.permissions), (FileType.DIR, 0o755, "drwxr-xr-x"))
    await fails(FileNotFoundException, lambda: t.sbx.files.get_info(t.path("none")))


@case("files.get_info", "symbolic link")
async def get_info_link(t):
    await got(t.sbx.files.write(t.path("a"), "four"))
    await t.sh("ln -s a link", cwd=t.path())
    link = await got(t.sbx.files.get_info(t.path("link")))
    same(
        (link.name, link.type, link.symlink_target, link.permissions),
        ("link", FileType.FILE, t.path("a"), "Lrwxrwxrwx"),
    )


@case("files.remove", "file, directory, nothing")
async def remove(t):
    await t.sh(f"mkdir -p {t.path('d/e')} && touch {t.path('d/e/f')} {t.path('a')}")
    for name in ("a", "d", "none"):
        await got(t.sbx.files.remove(t.path(name)))
        assert await got(t.sbx.files.exists(t.path(name))) is False


@case("files.rename", "file, directory, nothing")
async def rename(t):
    await got(t.sbx.files.write(t.path("a"), "x"))
    info = await got(t.sbx.files.rename(t.path("a"), t.path("new/b")))
    same((info.name, info.type, info.path), ("b", FileType.FILE, t.path("new/b")))
    await got(t.sbx.files.rename(t.path("new"), t.path("newer")))
    same(await got(t.sbx.files.read(t.path("newer/b"))), "x")
    assert await got(t.sbx.files.exists(t.path("new"))) is False
    await fails(FileNotFoundException, lambda: t.sbx.files.rename(t.path("none"), t.path("c")))


@case("files.make_dir", "new and there already")
async def make_dir(t):
    assert await got(t.sbx.files.make_dir(t.path("d/e"))) is True
    assert await got(t.sbx.files.make_dir(t.path("d/e"))) is False
    same(await t.sh('stat -c "%U %a" d d/e', cwd=t.path()), "user 755\nuser 755\n")
    await got(t.sbx.files.write(t.path("f"), ""))
    await fails(InvalidArgumentException, lambda: t.sbx.files.make_dir(t.path("f")))


@case("files.watch_dir", "what happens to a file")
async def watch_dir(t):
    await got(t.sbx.files.make_dir(t.path("sub")))
    watch = await t.flavour.watch(t.sbx, t.path())
    await got(t.sbx.files.write(t.path("a"), "x"))
    await sees(watch, "write a")
    same(said(watch), ["create a", "chmod a", "write a"])
    await got(t.sbx.files.write(t.path("sub/unseen"), "x"))
    await got(t.sbx.files.rename(t.path("a"), t.path("b")))
    await got(t.sbx.files.remove(t.path("b")))
    await sees(watch, "rename a", "create b", "remove b")
    assert not any("unseen" in s for s in said(watch)), said(watch)
    await watch.stop()


@case("files.watch_dir", "with everything below")
async def watch_recursive(t):
    await got(t.sbx.files.make_dir(t.path("old")))
    watch = await t.flavour.watch(t.sbx, t.path(), recursive=True)
    await got(t.sbx.files.write(t.path("old/a"), "x"))
    await sees(watch, "create old/a", "write old/a")
    await got(t.sbx.files.write(t.path("new/deep/b"), "x"))
    await sees(watch, "create new", "create new/deep", "create new/deep/b")
    await watch.stop()


@case("files.watch_dir", "with entries")
async def watch_entries(t):
    await got(t.sbx.files.make_dir(t.path()))
    watch = await t.flavour.watch(t.sbx, t.path(), include_entry=True)
    await got(t.sbx.files.write(t.path("a"), "four"))
    await sees(watch, "write a")
    entry = next(e.entry for e in watch.events if e.type == FilesystemEventType.WRITE)
    same((entry.name, entry.path, entry.type, entry.size), ("a", t.path("a"), FileType.FILE, 4))
    await watch.stop()


@case("files.watch_dir", "network mounts allowed", needs="allow_network_mounts")
async def watch_network(t):
    await got(t.sbx.files.make_dir(t.path()))
    watch = await t.flavour.watch(t.sbx, t.path(), allow_network_mounts=True)
    await got(t.sbx.files.write(t.path("a"), "x"))
    await sees(watch, "create a")
    await watch.stop()


@case("files.watch_dir", "missing directory, file")
async def watch_missing(t):
    await fails(FileNotFoundException, lambda: t.flavour.watch(t.sbx, t.path("none")))
    await fails(SandboxException, lambda: t.flavour.watch(t.sbx, "/etc/passwd"))


@case("watch.stop", "nothing is told any more")
async def watch_stop(t):
    await got(t.sbx.files.make_dir(t.path()))
    watch = await t.flavour.watch(t.sbx, t.path())
    await watch.stop()
    await got(t.sbx.files.write(t.path("a"), "x"))
    if t.flavour.polls:
        await fails(SandboxException, watch.look)
    same(said(watch), [])


@case("watch.get_new_events", "each is told once")
async def get_new_events(t):
    await got(t.sbx.files.make_dir(t.path()))
    watch = await t.flavour.watch(t.sbx, t.path())
    same(watch.handle.get_new_events(), [])
    await got(t.sbx.files.write(t.path("a"), "x"))
    await sees(watch, "write a")
    same(len(said(watch)), 3)
    same(watch.handle.get_new_events(), [])
    await watch.stop()
