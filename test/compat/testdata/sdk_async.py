"""What a user of the official asynchronous Python SDK does first."""

import asyncio
import os

from e2b import AsyncSandbox, CommandExitException, NotFoundException


async def main():
    sbx = await AsyncSandbox.create(metadata={"run": "compat async"})
    try:
        assert (await sbx.commands.run('python3 -c "print(1+1)"')).stdout == "2\n"
        try:
            await sbx.commands.run("exit 3")
            raise AssertionError("exit 3 passed")
        except CommandExitException as e:
            assert e.exit_code == 3
        results = await asyncio.gather(*(sbx.commands.run(f"echo {i}") for i in range(10)))
        assert [r.stdout for r in results] == [f"{i}\n" for i in range(10)]
        await sbx.files.write("a.txt", "first")
        assert await sbx.files.read("a.txt") == "first"
        await sbx.files.remove("a.txt")
        try:
            await sbx.files.read("a.txt")
            raise AssertionError("a removed file was read")
        except NotFoundException:
            pass
        handle = await sbx.commands.run("sleep 600", background=True)
        assert await handle.kill() is True
        assert await sbx.is_running()
    finally:
        assert await sbx.kill() is True
    assert await sbx.is_running() is False


asyncio.run(main())
print("ALL PASSED", flush=True)
# Threads of the client's transport may still run, and abort an interpreter that
# takes itself apart under them.
os._exit(0)
