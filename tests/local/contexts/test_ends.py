"""The final uploads of sessions, however they end."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from tests.local.contexts.actions import (
    context_files,
    create_context,
    delete_and_wait,
    put_file,
    sync_item,
    wait_for_transfers,
)
from tests.local.raw import Wire
from tests.local.traces import eventually, processes_with, unique_seconds

TOP = "/tmp/data"


def test_end_of_a_paused_session(wire: Wire):
    """A paused session is uploaded when it is deleted."""
    context = create_context(wire)
    with wire.session(PersistenceDataList=[sync_item(context, TOP)]) as session:
        wire.stdout(session, f"mkdir -p {TOP}; echo 1 > {TOP}/f; nohup sleep 100 >/dev/null 2>&1 &")
        wire.data("PauseSessionAsync", SessionId=session)
        delete_and_wait(wire, session)
    assert context_files(wire, context, TOP) == {"f": b"1\n"}


def test_end_by_death(wire: Wire):
    """A session whose init process dies is uploaded from another sandbox."""
    listed = [sync_item(create_context(wire), top) for top in (TOP, "/home/wuying/data", "/srv/data")]
    for one in listed:
        put_file(wire, one["ContextId"], f"{one['Path']}/old", b"old")
        put_file(wire, one["ContextId"], f"{one['Path']}/gone", b"gone")
    session = wire.create(PersistenceDataList=listed)
    wait_for_transfers(wire, session)
    marker = unique_seconds()
    tops = " ".join(one["Path"] for one in listed)
    wire.stdout(
        session,
        f"for d in {tops}; do echo 1 > $d/f; rm $d/gone; done; cd /tmp; setsid sleep {marker} >/dev/null 2>&1 &",
    )
    assert eventually(lambda: len(processes_with(marker)) == 1)
    status = Path(f"/proc/{processes_with(marker)[0]}/status").read_text()
    os.kill(int(re.search(r"PPid:\s+(\d+)", status)[1]), signal.SIGKILL)  # type: ignore[index]
    assert eventually(lambda: wire.status(session) == "FINISH")
    for one in listed:
        assert context_files(wire, one["ContextId"], one["Path"]) == {"old": b"old", "f": b"1\n"}


def test_end_by_time(wire: Wire):
    """A session is uploaded when its lifetime ends."""
    context = create_context(wire)
    session = wire.create(PersistenceDataList=[sync_item(context, TOP)], Timeout=1)
    wire.stdout(session, f"mkdir -p {TOP}; echo 1 > {TOP}/f")
    assert eventually(lambda: wire.status(session) == "FINISH")
    assert context_files(wire, context, TOP) == {"f": b"1\n"}
