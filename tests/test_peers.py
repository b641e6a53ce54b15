"""The README's comparison with the official client holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripted import Service, hang_up, http, ok

PROGRAM = Path(__file__).with_name("peer_program.py")
REFUSAL = {
    "RequestId": "R-NO",
    "Success": False,
    "Code": "NoPermission",
    "Message": "it says no",
    "HttpStatusCode": 200,
}
SCRIPT = {
    "GetSession": ok({"SessionId": "session-1", "Status": "RUNNING", "ToolList": "[]"}),
    "SetLabel": http(200, REFUSAL),
    "GetLink": http(200, REFUSAL),
    "GetLabel": [hang_up, ok({"Labels": "{}"})],
}
OURS = {
    "runs offline": "True",
    "pytest plugin": "True",
    "refused labels are a success": "False",
    "a refused link is a success": "False",
    "an answer lost once is a failure": "False",
    "a command is found again": "True",
    "with": "True",
    "py.typed": "True",
}


def facts(python: str, cwd: Path) -> dict[str, str]:
    """Return what the program prints with an interpreter."""
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    with Service(SCRIPT) as service:
        command = [python, str(PROGRAM), service.url]
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(line.split("\t") for line in done.stdout.splitlines() if "\t" in line)


def test_ours(tmp_path: Path) -> None:
    """Our client has every property in the table."""
    assert facts(sys.executable, tmp_path) == OURS


@pytest.mark.slow
def test_official_client(official: str, tmp_path: Path) -> None:
    """The official client differs from ours in every row."""
    assert facts(official, tmp_path) == {name: str(found == "False") for name, found in OURS.items()}
