"""The demo does what the README promises."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DEMO = [sys.executable, str(ROOT / "examples" / "demo.py")]

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return an environment with a temporary directory of its own."""
    marker = f"demo-{os.getpid()}-{tmp_path.name}"
    yield {**os.environ, "TMPDIR": str(tmp_path), "AGENTBAY_TEST_MARKER": marker}
    assert list(tmp_path.iterdir()) == []
    assert marked(marker) == []


def marked(marker: str) -> list[str]:
    """Return the command lines of processes whose environment holds the marker."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_runs_twice(home: dict[str, str]) -> None:
    """The demo runs both flavours, prints timings, and can be repeated."""
    for _ in range(2):
        ran = subprocess.run(DEMO, env=home, capture_output=True, text=True, timeout=300)
        assert (ran.returncode, ran.stderr) == (0, "")
        steps = re.findall(r"^  (.+?)  +[\d.]+ ms   (.*)$", ran.stdout, re.MULTILINE)
        assert len(steps) == 26
        assert steps[-1] == ("list what is left", "0 sessions")


def test_ctrl_c_leaves_nothing(home: dict[str, str]) -> None:
    """Ctrl-C ends the demo, and leaves no processes or files."""
    with subprocess.Popen(DEMO, env=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        while "write a file" not in child.stdout.readline():
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
        assert child.stderr is not None
        assert "Interrupted" in child.stderr.read()
