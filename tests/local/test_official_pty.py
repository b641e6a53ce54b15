"""The published client drives terminals of the runtime, and finds what ours finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentbay import AgentBay

PROGRAM = Path(__file__).parents[1] / "official_pty.py"


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["async", "sync"])
@pytest.mark.parametrize("client", ["ours", "official"])
def test_terminals(client: str, flavour: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A shell from its first prompt to its exit code, output that is not lost, a list, a replay, a kill."""
    python = sys.executable if client == "ours" else request.getfixturevalue("official")
    with AgentBay.local() as bay:
        bay.list()  # so that it starts
        done = subprocess.run(
            [python, str(PROGRAM), flavour, bay.client.settings.url],
            env={"PATH": os.environ["PATH"], "AGENTBAY_API_KEY": bay.api_key, "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=tmp_path,  # the published client writes a log file where it is
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert "$ " in found["prompt"]
    assert found["exit"] == 3
    assert "20 70" in found["output"]
    assert "hä\ufffd" in found["output"]
    assert found["quick"] == [7, "quick"]
    assert found["listed"] is True
    assert found["replay"] is True
    assert "not found" in found["unknown"]
