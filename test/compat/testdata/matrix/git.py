import pathlib
import urllib.parse

from e2b import (
    CommandExitException,
    GitAuthException,
    GitUpstreamException,
    InvalidArgumentException,
)

from matrix.harness import case, fails, got, same, until

SERVER = pathlib.Path(__file__).with_name("git_server.py").read_text()
LOGIN = {"username": "ada", "password": "s3cret"}


async def repository(t, name="repo"):
    """Makes one with a first commit of the file a."""
    path = t.path(name)
    await got(t.sbx.git.init(path, initial_branch="main"))
    await got(t.sbx.git.configure_user("Ada", "ada@example.com", scope="local", path=path))
    await commit(t, path, "a", "first")
    return path


async def commit(t, path, file, message):
    await got(t.sbx.files.write(f"{path}/{file}", message))
    await got(t.sbx.git.add(path))
    await got(t.sbx.git.commit(path, message))


async def shared(t):
    """Makes a repository and a bare one that it has pushed to."""
    path, bare = await repository(t), t.path("shared.git")
    await got(t.sbx.git.init(bare, bare=True, initial_branch="main"))
    await got(t.sbx.git.remote_add(path, "origin", bare))
    await got(t.sbx.git.push(path, remote="origin", branch="main"))
    return path, bare


async def guarded(t):
    """Serves the shared repository over HTTP, to those who know the word."""
    path, _ = await shared(t)
    await got(t.sbx.files.write(t.path("server.py"), SERVER))
    command = f"exec python3 server.py {t.path()} ada s3cret > port"
    handle = await got(t.sbx.commands.run(command, background=True, cwd=t.path(), timeout=0))

    async def listens():
        return (await t.sh("cat port || true", cwd=t.path())).endswith("\n")

    await until("the server says its port", listens)
    port = (await t.sh("cat port", cwd=t.path())).strip()
    return path, f"http://127.0.0.1:{port}/shared.git", handle


async def log(t, path):
    return await t.sh("git log --format=%s", cwd=path)


@case("git.init", "working and bare")
async def init(t):
    await got(t.sbx.git.init(t.path("r"), initial_branch="trunk"))
    await got(t.sbx.git.init(t.path("b"), bare=True))
    command = "git -C r symbolic-ref --short HEAD; git -C b rev-parse --is-bare-repository"
    same(await t.sh(command, cwd=t.path()), "trunk\ntrue\n")


@case("git.configure_user", "global and local")
async def configure_user(t):
    await got(t.sbx.git.init(t.path()))
    await got(t.sbx.git.configure_user("Grace", "grace@example.com"))
    await got(t.sbx.git.configure_user("Ada", "ada@example.com", scope="local", path=t.path()))
    same(await t.sh("git config user.name; cd /; git config user.email", cwd=t.path()), "Ada\ngrace@example.com\n")


@case("git.set_config", "global and local")
async def set_config(t):
    await got(t.sbx.git.init(t.path()))
    await got(t.sbx.git.set_config("pull.rebase", "false"))
    await got(t.sbx.git.set_config("pull.rebase", "true", scope="local", path=t.path()))
    same(await t.sh("git config pull.rebase; cd /; git config pull.rebase", cwd=t.path()), "true\nfalse\n")


@case("git.get_config", "set and not set")
async def get_config(t):
    await got(t.sbx.git.init(t.path()))
    local = {"scope": "local", "path": t.path()}
    await got(t.sbx.git.set_config("some.key", "a value", **local))
    same(await got(t.sbx.git.get_config("some.key", **local)), "a value")
    same(await got(t.sbx.git.get_config("no.such", **local)), None)


@case("git.add", "some and all files")
async def add(t):
    path = await repository(t)
    await t.sh("touch b c", cwd=path)
    await got(t.sbx.git.add(path, files=["b"]))
    same(await t.sh("git status --short", cwd=path), "A  b\n?? c\n")
    await got(t.sbx.git.add(path))
    same(await t.sh("git status --short", cwd=path), "A  b\nA  c\n")


@case("git.commit", "author, empty")
async def commit_options(t):
    path = await repository(t)
    author = {"author_name": "Bob", "author_email": "bob@example.com"}
    await got(t.sbx.git.commit(path, 'it\'s "quoted" $HOME', allow_empty=True, **author))
    same(await t.sh('git log -1 --format="%an %ae %s"', cwd=path), 'Bob bob@example.com it\'s "quoted" $HOME\n')
    await fails(CommandExitException, lambda: t.sbx.git.commit(path, "nothing", **author))


@case("git.status", "changes and branch")
async def status(t):
    path = await repository(t)
    assert (await got(t.sbx.git.status(path))).is_clean
    await t.sh("echo x > a; touch b c; git add b; git mv a d", cwd=path)
    s = await got(t.sbx.git.status(path))
    same(
        (s.current_branch, s.is_clean, s.has_staged, s.has_untracked, s.has_conflicts),
        ("main", False, True, True, False),
    )
    files = sorted((f.name, f.status, f.staged) for f in s.file_status)
    same(files, [("b", "added", True), ("c", "untracked", False), ("d", "renamed", True)])


@case("git.status", "ahead of its remote")
async def status_ahead(t):
    path, _ = await shared(t)
    await commit(t, path, "b", "second")
    s = await got(t.sbx.git.status(path))
    same((s.upstream, s.ahead, s.behind), ("origin/main", 1, 0))


@case("git.branches", "all and the current one")
async def branches(t):
    path = await repository(t)
    await t.sh("git branch other", cwd=path)
    b = await got(t.sbx.git.branches(path))
    same((sorted(b.branches), b.current_branch), (["main", "other"], "main"))


@case("git.create_branch", "and check it out")
async def create_branch(t):
    path = await repository(t)
    await got(t.sbx.git.create_branch(path, "topic"))
    same((await got(t.sbx.git.branches(path))).current_branch, "topic")


@case("git.checkout_branch", "known and unknown")
async def checkout_branch(t):
    path = await repository(t)
    await got(t.sbx.git.create_branch(path, "topic"))
    await got(t.sbx.git.checkout_branch(path, "main"))
    same((await got(t.sbx.git.branches(path))).current_branch, "main")
    await fails(CommandExitException, lambda: t.sbx.git.checkout_branch(path, "none"))


@case("git.delete_branch", "merged, and by force")
async def delete_branch(t):
    path = await repository(t)
    await t.sh("git branch merged; git checkout -q -b topic", cwd=path)
    await commit(t, path, "b", "second")
    await got(t.sbx.git.checkout_branch(path, "main"))
    await got(t.sbx.git.delete_branch(path, "merged"))
    await fails(CommandExitException, lambda: t.sbx.git.delete_branch(path, "topic"))
    await got(t.sbx.git.delete_branch(path, "topic", force=True))
    same((await got(t.sbx.git.branches(path))).branches, ["main"])


@case("git.reset", "modes and paths")
async def reset(t):
    path = await repository(t)
    await commit(t, path, "b", "second")
    await got(t.sbx.git.reset(path, mode="soft", target="HEAD~1"))
    same(await t.sh("git status --short", cwd=path), "A  b\n")
    await got(t.sbx.git.reset(path, paths=["b"]))
    same(await t.sh("git status --short", cwd=path), "?? b\n")
    await t.sh("echo changed > a", cwd=path)
    await got(t.sbx.git.reset(path, mode="hard"))
    same(await got(t.sbx.files.read(path + "/a")), "first")


@case("git.restore", "files, staged or not")
async def restore(t):
    path = await repository(t)
    await t.sh("echo changed > a; git add a", cwd=path)
    await got(t.sbx.git.restore(path, paths=["a"], staged=True))
    same(await t.sh("git status --short", cwd=path), " M a\n")
    await got(t.sbx.git.restore(path, paths=["a"]))
    same(await got(t.sbx.files.read(path + "/a")), "first")


@case("git.remote_add", "new, again, and fetched")
async def remote_add(t):
    path, bare = await shared(t)
    await got(t.sbx.git.remote_add(path, "other", "/nowhere"))
    await fails(CommandExitException, lambda: t.sbx.git.remote_add(path, "other", bare))
    await got(t.sbx.git.remote_add(path, "other", bare, overwrite=True, fetch=True))
    same(await t.sh("git branch -r", cwd=path), "  origin/main\n  other/main\n")


@case("git.remote_get", "known and unknown")
async def remote_get(t):
    path, bare = await shared(t)
    same(await got(t.sbx.git.remote_get(path, "origin")), bare)
    same(await got(t.sbx.git.remote_get(path, "none")), None)


@case("git.push", "to a bare repository")
async def push(t):
    path, bare = await shared(t)
    await commit(t, path, "b", "second")
    await got(t.sbx.git.push(path))
    same(await log(t, bare), "second\nfirst\n")


@case("git.push", "nowhere to push to")
async def push_nowhere(t):
    path, _ = await shared(t)
    await got(t.sbx.git.create_branch(path, "topic"))
    await fails(
        GitUpstreamException,
        lambda: t.sbx.git.push(path, set_upstream=False),
        "no upstream branch is configured",
    )


@case("git.push", "with a password")
async def push_login(t):
    path, url, server = await guarded(t)
    await got(t.sbx.git.remote_add(path, "web", url))
    await commit(t, path, "b", "second")
    await got(t.sbx.git.push(path, remote="web", branch="main", **LOGIN))
    same(await log(t, t.path("shared.git")), "second\nfirst\n")
    same(await got(t.sbx.git.remote_get(path, "web")), url)
    await fails(GitAuthException, lambda: t.sbx.git.push(path, remote="web", branch="main"))
    await got(server.kill())


@case("git.pull", "from a bare repository")
async def pull(t):
    path, bare = await shared(t)
    await got(t.sbx.git.clone(bare, path=t.path("copy")))
    await commit(t, path, "b", "second")
    await got(t.sbx.git.push(path))
    await got(t.sbx.git.pull(t.path("copy")))
    same(await log(t, t.path("copy")), "second\nfirst\n")
    await got(t.sbx.git.create_branch(path, "topic"))
    await fails(GitUpstreamException, lambda: t.sbx.git.pull(path), "no upstream branch is configured")


@case("git.pull", "with a password")
async def pull_login(t):
    path, url, server = await guarded(t)
    await got(t.sbx.git.clone(url, path=t.path("copy"), **LOGIN))
    await commit(t, path, "b", "second")
    await got(t.sbx.git.push(path))
    await fails(GitAuthException, lambda: t.sbx.git.pull(t.path("copy")))
    await got(t.sbx.git.pull(t.path("copy"), **LOGIN))
    same(await log(t, t.path("copy")), "second\nfirst\n")
    await got(server.kill())


@case("git.clone", "branch and depth")
async def clone(t):
    path, bare = await shared(t)
    await got(t.sbx.git.create_branch(path, "topic"))
    await commit(t, path, "b", "second")
    await got(t.sbx.git.push(path, remote="origin", branch="topic"))
    await got(t.sbx.git.clone(f"file://{bare}", path=t.path("copy"), branch="topic", depth=1))
    same(await log(t, t.path("copy")), "second\n")
    await got(t.sbx.git.clone(bare, cwd=t.path("copy")))
    same(await log(t, t.path("copy/shared")), "first\n")


@case("git.clone", "with a password")
async def clone_login(t):
    _, url, server = await guarded(t)
    wrong = {**LOGIN, "password": "wrong"}
    await fails(GitAuthException, lambda: t.sbx.git.clone(url, path=t.path("none")))
    await fails(GitAuthException, lambda: t.sbx.git.clone(url, path=t.path("none"), **wrong))
    await fails(InvalidArgumentException, lambda: t.sbx.git.clone(url, password="x"))
    await got(t.sbx.git.clone(url, path=t.path("copy"), **LOGIN))
    same(await got(t.sbx.git.remote_get(t.path("copy"), "origin")), url)
    await got(t.sbx.git.clone(url, path=t.path("kept"), dangerously_store_credentials=True, **LOGIN))
    same(await got(t.sbx.git.remote_get(t.path("kept"), "origin")), url.replace("//", "//ada:s3cret@"))
    await got(server.kill())


@case("git.dangerously_authenticate", "the password is remembered")
async def authenticate(t):
    _, url, server = await guarded(t)
    host = urllib.parse.urlparse(url).netloc
    await got(t.sbx.git.dangerously_authenticate(host=host, protocol="http", **LOGIN))
    await got(t.sbx.git.clone(url, path=t.path("copy")))
    same(await log(t, t.path("copy")), "first\n")
    await got(server.kill())
