"""Both clients use a session of the local runtime with the same outcome."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.both_clients import run_on_runtime

PROGRAM = Path(__file__).with_name("session_program.py")
KEY = "akm-story"
EXPECTED = {
    "resource": True,
    "command": [True, 0, "hello\n/home/wuying\nwuying\n", "oops\n", "hello\n/home/wuying\nwuying\noops\n"],
    "failed command": [False, 3, "out\n", "err\n", "err\n"],
    "late command": [False, "", True],
    "environment": "moin\n",
    "written": True,
    "appended": True,
    "read": [True, True],
    "bytes": [True, True],
    "listing": [["long.txt", False]],
    "missing": [False, True],
    "labelled": True,
    "labels": {"task": "main job", "part": "two"},
    "info": [True, True, "AIAgent"],
    "link": True,
    "bad link": True,
    "tools": True,
    "metrics": [True, True, True],
    "kept alive": True,
    "list": [True, 1],
    "found again": [True, 155007],
    "paused": [True, "PAUSED"],
    "command while paused": False,
    "resumed": [True, "back\n"],
    "deleted": True,
    "gone": [False, True],
    "left": 0,
}


@pytest.fixture(scope="module", params=["on", "off"], ids=["by link", "by service"])
def runtime(request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the URL of `agentbay local`, with and without direct links."""
    child = subprocess.Popen(
        [Path(sys.executable).with_name("agentbay"), "local", "--port", "0", "--link-url", request.param],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "AGENTBAY_API_KEY": KEY},
    )
    assert child.stdout is not None
    with child:
        line = child.stdout.readline()
        yield line.removeprefix("agentbay local ready at ").strip()
        child.terminate()
        assert child.wait(20) == 0


@pytest.mark.parametrize("flavour", ["async", "sync"])
def test_ours(runtime: str, flavour: str, tmp_path: Path) -> None:
    """Our client works by both routes of a tool call."""
    assert run_on_runtime(sys.executable, PROGRAM, flavour, runtime, KEY, tmp_path) == EXPECTED


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["async", "sync"])
def test_official_client(official: str, runtime: str, flavour: str, tmp_path: Path) -> None:
    """The official client gets the same outcome."""
    assert run_on_runtime(official, PROGRAM, flavour, runtime, KEY, tmp_path) == EXPECTED
