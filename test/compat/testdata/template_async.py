"""Templates, as a user of the official asynchronous Python SDK builds and uses them."""

import asyncio
import os

from e2b import AsyncSandbox, AsyncTemplate, BuildException, wait_for_port

context = os.environ["CONTEXT"]


def site(name):
    return (
        AsyncTemplate(file_context_path=context)
        .from_base_image()
        .copy("site/", "app/")
        .copy("*.txt", "texts/")
        .pip_install("flask")
        .npm_install("left-pad", g=True)
        .run_cmd(f"echo {name} > name")
        .set_workdir("/home/user/app")
        .set_start_cmd("python app.py", wait_for_port(8000))
    )


async def main():
    # Two at once.
    lines = []
    built = await asyncio.gather(
        *(AsyncTemplate.build(site(n), f"async-site:{n}", cpu_count=1, memory_mb=768, on_build_logs=lambda e: lines.append(e.message)) for n in ("one", "two"))
    )
    assert built[0].template_id == built[1].template_id
    for name in ("one", "two"):
        sbx = await AsyncSandbox.create(f"async-site:{name}")
        out = (await sbx.commands.run("cat ~/name; ls ~/texts; curl -s localhost:8000; npm ls -g left-pad | grep -c left-pad")).stdout
        assert out.startswith(f"{name}\none.txt\ntwo.txt\n") and "from the template" in out and out.endswith("1\n"), out
        await sbx.kill()
    try:
        await AsyncTemplate.build(AsyncTemplate().from_base_image().set_start_cmd("exit 5", wait_for_port(1)), "async-fails")
        raise AssertionError("it was built")
    except BuildException as e:
        assert "exit status 5" in str(e), e
    assert await AsyncTemplate.exists("async-site")
    await AsyncTemplate.assign_tags("async-site:one", "default")
    assert sorted(t.tag for t in await AsyncTemplate.get_tags("async-site")) == ["default", "one", "two"]
    print("ALL PASSED", flush=True)
    os._exit(0)


asyncio.run(main())
