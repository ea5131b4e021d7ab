"""Every public method of the official Python SDK, in its asynchronous flavour.

The cases are shared with the synchronous flavour; here stands what differs.
"""

import asyncio
import os
import typing

import e2b
from e2b import AsyncSandbox
from e2b.sandbox.commands.command_handle import PtySize

from matrix.harness import main


class Terminal:
    """A terminal. What appears on its screen is told as it comes."""

    def __init__(self):
        self.handle = None
        self.screen = b""

    async def wait(self):
        return await self.handle.wait()

    async def close(self):
        await self.handle.disconnect()

    def show(self, data):
        self.screen += data


class Watch:
    """A watched directory: events are told as they come."""

    def __init__(self):
        self.handle = None
        self.events = []

    async def look(self):
        await asyncio.sleep(0)  # the events come by themselves

    async def stop(self):
        await self.handle.stop()


class Flavour:
    sandbox = AsyncSandbox
    input_handle = getattr(e2b, "AsyncCommandInputHandle", None)  # not in every version
    polls = False

    async def terminal(self, sbx, cols=91, rows=20, **options):
        terminal = Terminal()
        terminal.handle = await sbx.pty.create(PtySize(rows=rows, cols=cols), on_data=terminal.show, **options)
        return terminal

    async def reconnect(self, sbx, pid, **options):
        terminal = Terminal()
        terminal.handle = await sbx.pty.connect(pid, on_data=terminal.show, **options)
        return terminal

    async def watch(self, sbx, path, **options):
        watch = Watch()
        watch.handle = await sbx.files.watch_dir(path, on_event=watch.events.append, **options)
        return watch

    async def send(self, module, pid, pieces):
        handle = module.stream_input(pid)
        for piece in pieces:
            await handle.send(piece)
        await handle.close()

    def takes_pieces(self):
        kinds = typing.get_args(getattr(e2b, "AsyncWriteData", None))
        return any("AsyncIterable" in str(kind) for kind in kinds)

    async def pieces(self, *pieces):
        for piece in pieces:
            yield piece

    async def collect(self, stream):
        return b"".join([chunk async for chunk in stream])

    async def within(self, sbx, use):
        async with sbx as same:
            await use(same)


asyncio.run(main(Flavour()))  # what it shows is flushed

# Threads of the client's transport may still run, and abort an interpreter that
# takes itself apart under them.
os._exit(0)
