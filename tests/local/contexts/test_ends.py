"""However a session ends, what it has goes up."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from tests.local.contexts.store import ended, item, made, put, settled, tree
from tests.local.raw import Wire
from tests.local.traces import eventually, processes_with, unique_seconds

TOP = "/tmp/data"


def test_end_of_a_paused_session(wire: Wire):
    """A session that is deleted while it is paused is uploaded like any other."""
    context = made(wire)
    with wire.session(PersistenceDataList=[item(context, TOP)]) as session:
        wire.stdout(session, f"mkdir -p {TOP}; echo 1 > {TOP}/f; nohup sleep 100 >/dev/null 2>&1 &")
        wire.data("PauseSessionAsync", SessionId=session)
        ended(wire, session)
    assert tree(wire, context, TOP) == {"f": b"1\n"}


def test_end_by_death(wire: Wire):
    """A session whose first process dies is uploaded from a sandbox that is made again: what it had, and no less."""
    listed = [item(made(wire), top) for top in (TOP, "/home/wuying/data", "/srv/data")]
    for one in listed:
        put(wire, one["ContextId"], f"{one['Path']}/old", b"old")
        put(wire, one["ContextId"], f"{one['Path']}/gone", b"gone")
    session = wire.create(PersistenceDataList=listed)
    settled(wire, session)
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
        assert tree(wire, one["ContextId"], one["Path"]) == {"old": b"old", "f": b"1\n"}


def test_end_by_time(wire: Wire):
    """A session whose time is up is uploaded too."""
    context = made(wire)
    session = wire.create(PersistenceDataList=[item(context, TOP)], Timeout=1)
    wire.stdout(session, f"mkdir -p {TOP}; echo 1 > {TOP}/f")
    assert eventually(lambda: wire.status(session) == "FINISH")
    assert tree(wire, context, TOP) == {"f": b"1\n"}
