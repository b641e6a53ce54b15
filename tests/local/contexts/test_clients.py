"""Contexts by the official client 0.22.3 and by ours, with the same outcome."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentbay import AgentBay, Config, ContextSync, CreateSessionParams
from tests.local.contexts.storage import Storage
from tests.local.raw import Wire

PROGRAM = Path(__file__).parents[2] / "contexts_program.py"
EXPECTED = {
    "made": [True, True],
    "listed": True,
    "missing": [False, True],
    "renamed": True,
    "upload url": [True, 200],
    "files": [["del.txt", "FILE", 1], ["up.txt", "FILE", 8]],
    "deleted file": True,
    "came down": "uploaded",
    "synced": True,
    "info": [["/tmp/data", "download", "Success"], ["/tmp/data", "upload", "Success"]],
    "bound": [True, ""],
    "bindings": ["/mnt/live", "/tmp/data"],
    "ended": True,
    "kept": ["late.txt", "new.txt", "up.txt"],
    "kept live": ["f"],
    "next session": ["late.txt", "new.txt", "up.txt"],
    "archived": ["data.zip"],
    "up": [True, 200_000, True],
    "down": [True, True],
    "path": "/tmp/file-transfer",
    "cleared": [True, "available"],
    "empty": True,
    "deleted": True,
}


def expected(storage: Storage) -> dict[str, Any]:
    """Return the expected outcome, without mounts where the storage has none."""
    if storage.supports_mounts:
        return EXPECTED
    return {
        **{name: seen for name, seen in EXPECTED.items() if name != "bound"},
        "bindings": ["/tmp/data"],
        "kept live": [],
    }


def run_program(python: str, flavour: str, wire: Wire, storage: Storage, folder: Path) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AGENTBAY_")}
    command = [python, str(PROGRAM), flavour, wire.url, wire.key, str(int(storage.supports_mounts))]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    lines = [line for line in ran.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, ran.stdout[-2000:] + ran.stderr[-4000:]
    seen: dict[str, Any] = json.loads(lines[0].removeprefix("RESULT "))
    return seen


@pytest.mark.parametrize("flavour", ["async", "sync"])
def test_ours(wire: Wire, storage: Storage, flavour: str, tmp_path: Path):
    """Our client does everything with contexts."""
    assert run_program(sys.executable, flavour, wire, storage, tmp_path) == expected(storage)


@pytest.mark.parametrize("flavour", ["async", "sync"])
def test_official_client(official: str, wire: Wire, storage: Storage, flavour: str, tmp_path: Path):
    """The official client has the same outcome."""
    assert run_program(official, flavour, wire, storage, tmp_path) == expected(storage)


def test_failures_are_reported(wire: Wire):
    """Failed downloads and uploads are reported, and a found session has its contexts."""
    with AgentBay(wire.key, Config(endpoint=wire.url)) as bay:
        made = bay.create(CreateSessionParams(context_syncs=[ContextSync("SdkCtx-made-up", "/tmp/x")]))
        assert (made.success, "SdkCtx-made-up" in made.error_message) == (False, True)
        assert bay.delete(made.session).success
        context = bay.context.create("to-be-deleted").unwrap().context
        session = bay.create(CreateSessionParams(context_syncs=[ContextSync(context.id, "/tmp/x")])).unwrap().session
        session.file_system.write_file("/tmp/x/f", "1").unwrap()
        assert session.file_system.get_file_transfer_context_path() == "/tmp/file-transfer"
        again = bay.get(session.session_id).unwrap().session
        assert again.file_system.get_file_transfer_context_path() == "/tmp/file-transfer"
        assert [one.path for one in again.context.list_bindings().bindings] == ["/tmp/x"]
        bay.context.delete(context).unwrap()
        ended = again.delete(sync_context=True)
        assert (ended.success, "was deleted" in ended.error_message, context.id in ended.error_message) == (
            False, True, True,
        )  # fmt: skip
        assert not bay.get(session.session_id)
