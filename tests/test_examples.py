"""Every example runs on the local runtime and prints what it promises."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.local.images.builds import busybox_layer, needs_busybox
from tests.scripted import quiet_port

if sys.platform != "linux":
    pytest.skip("the local runtime needs Linux", allow_module_level=True)

EXAMPLES = Path(__file__).parent.parent / "examples"
SAYS = {
    "dask_workers": [r"^pi is about 3\.1\d, by 8 jobs in 2 sessions"],
    "browser_profile": [r"^session 1: please log in\nsession 2: user=zoe"],
    "browser_report": [r"^Mean: 11.9\nPDF: %PDF-, picture: PNG"],
    "browser_shop": [r"^the page says: Thank you\nthe shop has noted: coffee for Zoë"],
    "desktop_agent": [r"^click 1 at \(\d+, \d+\)", r"^click 3 at", r"^the program counted 3 clicks"],
    "desktop_form": [r"^2 windows: Order, Notes", r"^order: 3 x Blätterteig for Zoë", r"^note: paid 漢字"],
    "desktop_watch": [r"^the window says: done\nthe screen is \(1280, 800\) and its middle \(32, 64, 128\)"],
    "faults": [r"\['refused', 'busy'\]: 1 session, 3 requests", r"1 line was written", r"not there: True"],
    "git_workflow": [r"the test passes", r"rejected: fetch first", r"Note of shop\n.*Note of colleague"],
    "langchain_tool": [r"^0 1 1 2 3 5 8 13 21 34$", r"^write_file -> Execution failed", r"^shell -> exit code 1$"],
    "long_job": [r"^started.*\n  step 1\n  step 2\n(.*\n)+result: 42"],
    "mcp_client": [
        r"^run_command start_process",
        r"^  step 1\n  step 2\n",
        r"^\[exit code 4\]$",
        r"^image/png, \d{4,}",
    ],
    "notebook_kernel": [
        r"^/home/wuying 42\ninterrupted: KeyboardInterrupt\nafter the restart: still here False",
    ],
    "parallel_sessions": [r"600851475143: 71 839 1471 6857", r"8 sessions in", r"^0 sessions left"],
    "pipeline": [
        r"^stage clean: 2 of 502 rows dropped\nstage add up: 3 cities",
        r"^kept: clean.csv, raw.csv, report.md",
    ],
    "terminal": [r"^Setting up shop .* 13 characters", r"shown: False\ncancelled: True"],
    "tool_loop": [r"NameError", r"\[2, 3, 5, 7", r"^The primes"],
    "web_server": [r"\{'sum': 42\}", r"^after the session: 4\d\d"],
}
ELSEWHERE = {"demo", "service", "terminal_task", "test_agent"}

pytestmark = pytest.mark.slow


def test_each_is_here() -> None:
    """Every example has a test and a docstring, and is short."""
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*SAYS, *ELSEWHERE}
    for path in EXAMPLES.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert path.stem == "demo" or len(text.splitlines()) < 80, path
        assert f"examples/{path.name}" in text or path.stem == "demo"


@pytest.mark.parametrize("name", SAYS)
def test_runs(name: str, tmp_path: Path) -> None:
    """The example exits with 0, without warnings, and leaves nothing behind."""
    line = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    for pattern in SAYS[name]:
        assert re.search(pattern, done.stdout, re.MULTILINE), done.stdout
    assert list(tmp_path.iterdir()) == []


def test_test_of_an_agent() -> None:
    """The example test suite passes."""
    line = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", EXAMPLES / "test_agent.py"]
    done = subprocess.run(line, cwd=EXAMPLES, capture_output=True, text=True, timeout=300)
    assert "5 passed" in done.stdout, done.stdout


@needs_busybox
def test_task_of_a_dockerfile(tmp_path: Path) -> None:
    """The image is built on a root file system of Debian's, here of busybox, and the tests tell the agents apart."""
    (tmp_path / "root.tar").write_bytes(busybox_layer(applets=("sort", "uniq")))
    line = [sys.executable, "-W", "error", str(EXAMPLES / "terminal_task.py"), "root.tar"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "task:1 has 4 layers\nhasty: not solved\ncareful: solved\n"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_service(loop: str) -> None:
    """The example service runs code, reports errors, and shuts down in order."""
    port = quiet_port()
    line = [sys.executable, "-m", "uvicorn", "--app-dir", EXAMPLES, "service:app", "--port", str(port), "--loop", loop]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as child, httpx.Client(timeout=60) as http:
        try:
            _use(http, f"http://127.0.0.1:{port}/run")
        finally:
            http.close()  # uvicorn waits for open connections
            child.terminate()
            _, output = child.communicate(timeout=60)
    assert "Traceback" not in output


def _use(http: httpx.Client, url: str) -> None:
    deadline = time.monotonic() + 60
    answer = None
    while answer is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.ConnectError):
            answer = http.post(url, content="print(6 * 7)")
        time.sleep(0.1)
    assert answer is not None
    assert answer.status_code == 200
    assert answer.json() == {"exit_code": 0, "stdout": "42\n", "stderr": ""}
    assert http.post(url, content="1 / 0").json()["exit_code"] == 1
    assert http.post(url, content="x" * 70000).status_code == 413
    late = http.post(url, content="print('so far', flush=True)\nwhile True: pass")
    assert (late.status_code, late.json()["stdout"]) == (422, "so far\n")
