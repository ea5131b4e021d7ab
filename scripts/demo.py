"""What a user of the official SDK writes, with the times it takes."""

import os
import sys
import time

from e2b import Sandbox
from e2b.exceptions import SandboxException

PYTHON = """
import platform, sys
print("Python", sys.version.split()[0], "on", platform.system(), platform.machine())
print("the first squares:", [n * n for n in range(10)])
"""
NODE = """
console.log("Node", process.version, "says", [3, 1, 2].toSorted?.() ?? [3, 1, 2].sort());
"""


def step(what, do):
    begin = time.perf_counter()
    result = do()
    print(f"{(time.perf_counter() - begin) * 1000:8.0f} ms  {what}")
    return result


def show(output):
    for line in output.strip().splitlines():
        print(f"{'':11}  | {line}")


def create():
    """Creates a sandbox, however long its template takes to be built."""
    while True:
        try:
            return Sandbox.create(timeout=300)
        except SandboxException as e:
            if "still being built" not in str(e):
                raise


def main():
    if os.environ.get("COVE_DEMO_FIRST"):
        step("build the base template (once)", lambda: create().kill())
    sandbox = step("create a sandbox", create)
    try:
        sandbox.files.write("/home/user/squares.py", PYTHON)
        show(step("run Python", lambda: sandbox.commands.run("python3 squares.py")).stdout)
        sandbox.files.write("/home/user/hello.js", NODE)
        show(step("run Node", lambda: sandbox.commands.run("node hello.js")).stdout)
        step("write a file", lambda: sandbox.files.write("note.txt", "kept in the sandbox\n"))
        show(step("read it", lambda: sandbox.files.read("note.txt")))
        show(step("ask for the kernel", lambda: sandbox.commands.run("dmesg | head -2", user="root")).stdout)
    finally:
        step("kill the sandbox", sandbox.kill)


if __name__ == "__main__":
    sys.exit(main())
