"""Every public method of the official Python SDK, in its synchronous flavour.

The cases are shared with the asynchronous flavour; here stands what differs.
"""

import asyncio
import os
import typing

import e2b
from e2b import Sandbox
from e2b.sandbox.commands.command_handle import PtySize

from matrix.harness import main


class Terminal:
    """A terminal. What appears on its screen is read when somebody waits."""

    def __init__(self, handle):
        self.handle = handle
        self.screen = b""

    async def wait(self):
        return self.handle.wait(on_pty=self._show)

    async def close(self):
        self.handle.disconnect()

    def _show(self, data):
        self.screen += data


class Watch:
    """A watched directory: events are fetched."""

    def __init__(self, handle):
        self.handle = handle
        self.events = []

    async def look(self):
        self.events += self.handle.get_new_events()

    async def stop(self):
        self.handle.stop()


class Flavour:
    sandbox = Sandbox
    input_handle = None  # input is given all at once
    polls = True

    async def terminal(self, sbx, cols=91, rows=20, **options):
        return Terminal(sbx.pty.create(PtySize(rows=rows, cols=cols), **options))

    async def reconnect(self, sbx, pid, **options):
        return Terminal(sbx.pty.connect(pid, **options))

    async def watch(self, sbx, path, **options):
        return Watch(sbx.files.watch_dir(path, **options))

    async def send(self, module, pid, pieces):
        module.stream_input(pid, pieces)

    def takes_pieces(self):
        kinds = typing.get_args(getattr(e2b, "WriteData", None))
        return any("Iterable" in str(kind) for kind in kinds)

    def pieces(self, *pieces):
        return iter(pieces)

    async def collect(self, stream):
        return b"".join(stream)

    async def within(self, sbx, use):
        with sbx as same:
            await use(same)


asyncio.run(main(Flavour()))  # what it shows is flushed

# Threads of the client's transport may still run, and abort an interpreter that
# takes itself apart under them.
os._exit(0)
