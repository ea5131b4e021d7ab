"""Runs cases and says how each went.

A case is written once for both flavours of the SDK: what it calls goes through
got(), which waits if there is something to wait for.
"""

import asyncio
import importlib
import inspect
import json
import time
import traceback

import e2b

CASE_LIMIT = 60.0  # seconds

CASES = []  # filled by the modules of cases, in the order they are imported


def case(method, examined, needs=None):
    """Makes a function a case of a method. Where not every version has what the
    case needs, needs names the parameter of the method, or is asked."""

    def register(examine):
        CASES.append((method, examined, needs, examine))
        return examine

    return register


def show(line):
    print(json.dumps(line), flush=True)


async def got(result):
    """The result of a call to either flavour."""
    return await result if inspect.isawaitable(result) else result


async def fails(kind, call, message=""):
    """Returns the error that a call must end with."""
    try:
        await got(call())
    except kind as e:
        assert message in str(e), f"the message lacks {message!r}: {e}"
        return e
    raise AssertionError(f"no {kind.__name__}")


def same(got, want):
    assert got == want, f"{got!r}, want {want!r}"


async def until(what, ask):
    """Asks again until the answer is yes."""
    deadline = time.monotonic() + 20
    while not await got(ask()):
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not come to this: {what}")
        await asyncio.sleep(0.02)


class Run:
    """One run of the cases, on a sandbox of its own."""

    def __init__(self, flavour, sbx, classes):
        self.flavour = flavour
        self.sbx = sbx
        self.classes = classes
        self.count = 0
        self.others = []
        self.snapshots = []

    def has(self, method, needs=None):
        """Says whether this version has a method, and what a case needs."""
        group, _, name = method.partition(".")
        function = getattr(self.classes.get(group), name, None)
        if function is None or needs is None:
            return function is not None
        if callable(needs):
            return needs(self.flavour)
        return needs in inspect.signature(function).parameters

    async def run(self, method, examined, needs, examine):
        line = {"method": method, "case": examined, "result": "pass"}
        if not self.has(method, needs):
            show({**line, "result": "absent"})
            return
        self.count += 1
        self.dir = f"/home/user/case-{self.count}"
        try:
            await asyncio.wait_for(examine(self), CASE_LIMIT)
        except Exception:
            line.update(result="fail", detail=traceback.format_exc(limit=-6))
        for other in self.others:
            await got(other.kill())
        self.others.clear()
        for snapshot in self.snapshots:
            await got(self.flavour.sandbox.delete_snapshot(snapshot))
        self.snapshots.clear()
        show(line)

    def path(self, name=""):
        """A file of the case's own, in a directory that need not exist."""
        return f"{self.dir}/{name}" if name else self.dir

    async def create(self, **options):
        """One more sandbox, for as long as the case takes."""
        options.setdefault("timeout", 120)
        other = await got(self.flavour.sandbox.create(**options))
        self.others.append(other)
        return other

    async def sh(self, command, **options):
        """What a command writes."""
        return (await got(self.sbx.commands.run(command, **options))).stdout


async def classes_of(flavour, sbx):
    """The classes whose methods are the SDK: those of a sandbox, its modules and
    their handles."""
    handle = await got(sbx.commands.run("exec sleep 60", background=True))
    watch = await flavour.watch(sbx, "/tmp")
    objects = {
        "commands": sbx.commands,
        "handle": handle,
        "pty": sbx.pty,
        "files": sbx.files,
        "watch": watch.handle,
        "git": sbx.git,
        "sandbox": sbx,
    }
    await watch.stop()
    await got(handle.kill())
    classes = {name: type(o) for name, o in objects.items()}
    if flavour.input_handle:
        classes["input"] = flavour.input_handle
    return classes


def methods_of(classes):
    """Names every public method, and the classes that serve other things."""
    names = [
        f"{group}.{name}"
        for group, cls in classes.items()
        for name in dir(cls)
        if not name.startswith("_")
        and not isinstance(inspect.getattr_static(cls, name), property)
        and callable(getattr(cls, name))
    ]
    return names + [name for name in ("Template", "Volume", "Secret") if hasattr(e2b, name)]


async def main(flavour):
    for name in ("commands", "pty", "files", "git", "sandbox", "lifecycle", "snapshots"):
        importlib.import_module(f"matrix.{name}")
    sbx = await got(flavour.sandbox.create(timeout=600, envs={"GREETING": "hello", "WHO": "all"}))
    try:
        classes = await classes_of(flavour, sbx)
        show({"methods": methods_of(classes)})
        run = Run(flavour, sbx, classes)
        for each in CASES:
            await run.run(*each)
    finally:
        await got(sbx.kill())
    show({"end": True})
