"""`agentbay image`, on a local runtime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.local.images.builds import Built, busybox_layer, member, needs_busybox
from tests.local.traces import processes_with, unique_seconds
from tests.test_cli import COMMAND, Run, here, run

__all__ = ["here", "run"]  # fixtures

if sys.platform != "linux":
    pytest.skip("the local runtime needs Linux", allow_module_level=True)
pytestmark = needs_busybox


@pytest.fixture
def archive(here: Path) -> Path:
    """An image in a file."""
    place = here / "base.tar"
    place.write_bytes(Built([busybox_layer(member("srv/file", b"lower"))], {"Env": ["PATH=/bin"]}).oci_archive())
    return place


def test_build(run: Run, archive: Path, here: Path) -> None:
    """Steps are shown on standard error, the name on standard output; a second build does nothing again."""
    run("image", "import", str(archive), "--name", "cli-base:1")
    (here / "context").mkdir()
    (here / "context/file").write_text("copied\n")
    (here / "Other").write_text(
        "FROM cli-base:1\nARG WHO\nCOPY file /f\nRUN echo hello $WHO; cat /f; printf 'a\\033[2Jb\\r\\n'\n"
    )
    arguments = ("image", "build", "context", "-f", "Other", "-t", "cli-built:1", "--build-arg", "WHO=you")
    status, out, err = run(*arguments)
    assert (status, out) == (0, "cli-built:1\n")
    assert "[4/4] RUN echo hello" in err
    assert "\nhello you\ncopied\na\\x1b[2Jb\n" in err
    status, out, err = run(*arguments, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["names"] == ["cli-built:1"]
    assert run(*arguments, "-q") == (0, "cli-built:1\n", "")
    for name in ("cli-built:1", "cli-base:1"):
        assert run("image", "rm", name)[0] == 0


def test_build_of_a_task(run: Run, here: Path) -> None:
    """The example of a task builds from the command line, and its image has what the agent needs and no tests."""
    archive = here / "base.tar"
    archive.write_bytes(busybox_layer(applets=("sort", "uniq")))
    run("image", "import", str(archive), "--name", "cli-base:1")
    task = Path(__file__).parent.parent / "examples/task"
    status, out, err = run("image", "build", str(task), "-t", "cli-task:1", "--build-arg", "BASE=cli-base:1")
    assert (status, out) == (0, "cli-task:1\n"), err
    session = run("session", "create", "--image", "cli-task:1")[1].strip()
    done = run("session", "exec", session, "--", "sh", "-c", "pwd; wc -l < access.log; ls /tests")
    assert done == (1, "/app\n12\n", "ls: /tests: No such file or directory\n")
    assert run("session", "delete", session)[0] == 0
    for name in ("cli-task:1", "cli-base:1"):
        assert run("image", "rm", name)[0] == 0


def test_interrupted_builds(run: Run, archive: Path, here: Path) -> None:
    """A user sees the steps as they run; Ctrl-C ends the build at once, with the exit code of an interrupt."""
    import pexpect  # type: ignore[import-untyped]

    run("image", "import", str(archive), "--name", "cli-base:1")
    seconds = unique_seconds()
    (here / "Dockerfile").write_text(f"FROM cli-base:1\nRUN echo kept > /kept\nRUN echo begun; sleep {seconds}\n")
    command = [*COMMAND[1:], "image", "build", "-t", "cli-cut:1", "."]
    shown = pexpect.spawn(COMMAND[0], command, cwd=str(here), timeout=120, encoding="utf-8", dimensions=(25, 80))
    steps = ["FROM cli-base:1", "RUN echo kept > /kept", f"RUN echo begun; sleep {seconds}"]
    shown.expect_exact("".join(f"[{number}/3] {step}\r\n" for number, step in enumerate(steps, 1)))
    shown.expect_exact("begun\r\n")
    assert processes_with(seconds)
    shown.sendintr()
    shown.expect(pexpect.EOF)
    shown.close()
    assert (shown.exitstatus, processes_with(seconds)) == (130, [])
    assert "cli-cut:1" not in run("image", "list")[1]
    assert run("image", "prune")[0] == 0  # the step that was done
    assert run("image", "rm", "cli-base:1")[0] == 0


def test_failed_builds(run: Run, archive: Path, here: Path) -> None:
    """A failed build tells the line after its output, and what is no argument is refused as such."""
    run("image", "import", str(archive), "--name", "cli-base:1")
    (here / "Dockerfile").write_text("FROM cli-base:1\nRUN echo why; exit 7\n")
    status, out, err = run("image", "build")
    assert (status, out) == (1, "")
    assert err.index("why") < err.index("Line 2: RUN: the command ended with exit code 7")
    status, out, err = run("image", "build", "--json")
    assert (status, out) == (1, "")
    assert json.loads(err)["output"].endswith("\nwhy\n")
    assert json.loads(err)["error"]["code"] == "ImageBuildFailed.Local"
    status, _, err = run("image", "build", "--build-arg", "novalue")
    assert (status, "build-arg must be NAME=VALUE" in err) == (2, True)
    status, _, err = run("image", "build", "absent")
    assert (status, "Dockerfile" in err) == (1, True)
    assert run("image", "prune")[0] == 0
    assert run("image", "rm", "cli-base:1")[0] == 0


def test_management(run: Run, archive: Path) -> None:
    """Images are listed, shown, completed and removed; what is not there is refused with the way to see what is."""
    assert run("image", "import", str(archive), "--name", "cli-managed:1")[:2] == (0, "cli-managed:1\n")
    status, out, err = run("image", "list")
    assert (status, err) == (0, "")
    assert "cli-managed:1" in [line.split("\t")[0] for line in out.splitlines()]
    assert "cli-managed:1" in [image["name"] for image in json.loads(run("image", "list", "--json")[1])]
    status, out, _ = run("image", "inspect", "cli-managed:1", "--json")
    assert (status, json.loads(out)["env"]) == (0, {"PATH": "/bin"})
    assert "shell: /bin/sh" in run("image", "inspect", "cli-managed:1")[1].splitlines()
    for line in ("agentbay image rm cli-ma", "agentbay session create --image cli-ma"):
        asked = {"_AGENTBAY_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        done = subprocess.run(COMMAND, env={**os.environ, **asked}, capture_output=True, text=True, timeout=120)
        assert done.stdout.split() == ["cli-managed:1"]
    assert run("image", "rm", "cli-managed:1") == (0, "cli-managed:1\n", "")
    status, out, err = run("image", "rm", "cli-managed:1")
    assert (status, out) == (1, "")
    assert "There is no image 'cli-managed:1'" in err
    assert "agentbay image list" in err
    status, _, err = run("image", "import", str(archive.with_name("absent.tar")))
    assert (status, "absent.tar" in err) == (1, True)
    status, _, err = run("image", "pull", "127.0.0.1:1/app:1", "--json")
    assert (status, json.loads(err)["error"]["code"]) == (1, "ImagePullFailed.Local")
