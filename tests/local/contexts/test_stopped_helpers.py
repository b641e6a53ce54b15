"""Code of a session that stops or kills the programs which transfer its files."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.local.contexts.actions import context_files, create_context, sync_item, transfer_statuses, wait_for_transfers
from tests.local.raw import Wire, embedded
from tests.local.traces import eventually, processes_with, unique_seconds
from tests.local.users import USERS, User

TOP = "/tmp/data"
STOPPER = """
import os, signal
own = os.getpid()
while True:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) not in (1, own):
            try:
                if open(f"/proc/{pid}/cmdline", "rb").read().startswith(b"agentbay-sandbox"):
                    os.kill(int(pid), signal.SIGSTOP)
            except OSError:
                pass
"""


def begin(wire: Wire, context: str, marker: str) -> str:
    """Make a session whose code stops every program that transfers files."""
    session = str(wire.create(PersistenceDataList=[sync_item(context, TOP)]))
    wait_for_transfers(wire, session)
    wire.stdout(session, f"mkdir -p {TOP}; head -c 50M /dev/urandom > {TOP}/big; echo work > {TOP}/f")
    wire.stdout(
        session, f"cat > /tmp/stop.py <<'EOF'\n{STOPPER}\nEOF\n(python3 /tmp/stop.py {marker} >/dev/null 2>&1 &)"
    )
    assert eventually(lambda: processes_with(marker))
    return session


@pytest.mark.parametrize("somebody", USERS, indirect=True)
def test_delete_ends_everything_at_once(who: User):
    """A deleted session ends with its code, and its files are uploaded."""
    with embedded(who.directory / "state", **who.starts()) as (child, wire):
        context, marker = create_context(wire), unique_seconds()
        session = begin(wire, context, marker)
        wire.data("SyncContext", SessionId=session)
        time.sleep(0.5)  # it may be stopped by now, or have ended: both are right
        wire.data("DeleteSessionAsync", SessionId=session)
        assert eventually(lambda: wire.status(session) == "FINISH")
        assert not processes_with(marker)
        found = context_files(wire, context, TOP)
        assert (found["f"], len(found["big"])) == (b"work\n", 50 << 20)
        assert child.close_stdin() == 0
        assert "Traceback" not in child.standard_error()


@pytest.mark.parametrize("somebody", USERS, indirect=True)
def test_stop_of_the_runtime(who: User):
    """The runtime stops in time, though code of a session has stopped a transfer."""
    with embedded(who.directory / "state", **who.starts()) as (child, wire):
        context, marker = create_context(wire), unique_seconds()
        session = begin(wire, context, marker)
        wire.data("SyncContext", SessionId=session)
        assert eventually(lambda: transfer_statuses(wire, session, TaskType="upload"))
        assert child.send(signal.SIGTERM) == 0
        assert not processes_with(marker)
    with embedded(who.directory / "state", **who.starts()) as (child, wire):
        assert context_files(wire, context, TOP)["f"] == b"work\n"


def test_second_signal(tmp_path: Path):
    """A second signal ends a runtime whose sessions have transfers under way."""
    with embedded(tmp_path) as (child, wire):
        context, marker = create_context(wire), unique_seconds()
        session = begin(wire, context, marker)
        wire.data("SyncContext", SessionId=session)
        child.process.send_signal(signal.SIGTERM)
        assert child.send(signal.SIGTERM) == 0
        assert not processes_with(marker)
