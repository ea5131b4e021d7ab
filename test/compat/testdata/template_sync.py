"""Templates, as a user of the official Python SDK builds and uses them."""

import os
import time
import urllib.request

from e2b import BuildException, Sandbox, Template, default_build_logger, wait_for_port, wait_for_timeout

context = os.environ["CONTEXT"]
lines = []


def log(entry):
    lines.append(entry.message)


def timed(do):
    begun = time.monotonic()
    result = do()
    return result, time.monotonic() - begun


def site(last):
    return (
        Template(file_context_path=context)
        .from_base_image()
        .copy("site", "/home/user/app", mode=0o755)
        .copy_items([{"src": "one.txt", "dest": "first.txt"}, {"src": "two.txt", "dest": "/srv/"}])
        .set_envs({"MODE": "python"})
        .make_dir("made")
        .make_symlink("/srv/two.txt", "made/link")
        .rename("first.txt", "made/renamed.txt")
        .make_dir("gone")
        .remove("gone", recursive=True)
        .pip_install(["flask"])
        .apt_install("tree")
        .set_workdir("/home/user/app")
        .run_cmd([f"echo {last} > last", "test $MODE = python"])
        .set_start_cmd("python app.py", wait_for_port(8000))
    )


info, took = timed(lambda: Template.build(site("one"), "py-site:v1", cpu_count=1, memory_mb=768, on_build_logs=log))
print(f"built in {took:.1f} s")
assert any("Running start command" in line for line in lines), lines
with Sandbox.create("py-site:v1") as sbx:
    request = urllib.request.Request(
        os.environ["E2B_SANDBOX_URL"] + "/", headers={"E2b-Sandbox-Id": sbx.sandbox_id, "E2b-Sandbox-Port": "8000"}
    )
    page, wait = timed(lambda: urllib.request.urlopen(request).read().decode())
    assert "from the template" in page and "python" in page, page
    print(f"first answer after {wait * 1000:.0f} ms")
    out = sbx.commands.run("pwd; whoami; cat last ~/made/renamed.txt ~/made/link; which tree; ls ~").stdout
    assert out == "/home/user/app\nuser\none\none\ntwo\n/usr/bin/tree\napp\nmade\n", out

again, took = timed(lambda: Template.build(site("one"), "py-site:v1", cpu_count=1, memory_mb=768))
assert (again.template_id, took < 1.0) == (info.template_id, True), took
lines.clear()
Template.build(site("two"), "py-site:v2", cpu_count=1, memory_mb=768, on_build_logs=log)
assert len([line for line in lines if line.startswith("[builder") and "] RUN" in line]) == 1, lines


def fails(template, *texts):
    try:
        Template.build(template, "py-fails")
    except BuildException as e:
        for text in texts:
            assert text in str(e), (text, str(e))
        return e
    raise AssertionError("it was built")


e = fails(Template().from_base_image().run_cmd("true").run_cmd("echo last words; exit 7"), "exit status 7", "last words")
names = []
tb = e.__traceback__
while tb:
    names.append(tb.tb_frame.f_code.co_filename)
    tb = tb.tb_next
assert any("template_sync.py" in name for name in names), names
fails(
    Template().from_base_image().run_cmd("whoami", user="root123"),
    "failed to run command 'whoami': command failed: unauthenticated: invalid username: 'root123'",
)
fails(Template().from_template("no-such-template"))

back = Template.build_in_background(
    Template().from_template("py-site:v1").set_start_cmd("sleep 600", wait_for_timeout(100)), "py-back", tags=["a", "b"]
)
while Template.get_build_status(back).status.value == "building":
    time.sleep(0.2)
assert Template.get_build_status(back).status.value == "ready"
assert sorted(t.tag for t in Template.get_tags("py-back")) == ["a", "b"]
assert Template.assign_tags("py-back:a", ["c"]).build_id == back.build_id
Template.remove_tags("py-back", ["a", "b"])
assert [t.tag for t in Template.get_tags("py-back")] == ["c"]
assert Template.exists("py-back") and not Template.exists("py-never")
assert default_build_logger
print("ALL PASSED", flush=True)
os._exit(0)
