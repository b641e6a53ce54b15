"""nbclient's own tests of executing notebooks, without those that mock the kernel, over kernels in sessions."""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from gate import gate_to_runtime
from jupyter_client.manager import AsyncKernelManager

from agentbay.integrations.jupyter import install

sys.path.insert(0, os.environ["FRAMEWORK_SOURCE"])
os.environ["IPYKERNEL_CELL_NAME"] = "<IPY-INPUT>"  # as its conftest.py has it
suite: Any = import_module("tests.test_client")
globals().update({name: value for name, value in vars(suite).items() if name.startswith("test_")})
TestExecute = suite.TestExecute


@pytest.fixture(autouse=True)
def kernels(agentbay_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the usual kernel of Jupyter run in a session, with the variables that the suite sets for it."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    file = Path(install("python3", user=True), "kernel.json")
    defaults = {"COLUMNS": "80", "LINES": "24", "IPYKERNEL_CELL_NAME": "", "NBEXECUTE_TEST_PARALLEL_TMPDIR": "/tmp"}
    for name, value in defaults.items():
        monkeypatch.setenv(name, os.environ.get(name, value))
    file.write_text(json.dumps({**json.loads(file.read_text()), "env": {name: f"${{{name}}}" for name in defaults}}))


async def test_cancelled_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel whose start is cancelled leaves no session."""
    async with gate_to_runtime(monkeypatch) as gate:
        await gate.cancel(AsyncKernelManager().start_kernel())
