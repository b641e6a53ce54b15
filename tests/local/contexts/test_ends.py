"""The final uploads of sessions, however they end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
from pathlib import Path

from tests.local.contexts.actions import (
    context_files,
    create_context,
    delete_and_wait,
    put_file,
    sync_item,
    wait_for_transfers,
)
from tests.local.raw import Wire, embedded
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
    # `setsid` becomes `sleep`, and has no command line at the moment of that.
    assert eventually(lambda: [Path(f"/proc/{pid}/comm").read_text() for pid in processes_with(marker)] == ["sleep\n"])
    status = Path(f"/proc/{processes_with(marker)[0]}/status").read_text()
    os.kill(int(re.search(r"PPid:\s+(\d+)", status)[1]), signal.SIGKILL)  # type: ignore[index]
    assert eventually(lambda: wire.status(session) == "FINISH")
    for one in listed:
        assert context_files(wire, one["ContextId"], one["Path"]) == {"old": b"old", "f": b"1\n"}


def test_end_without_the_database(tmp_path: Path):
    """A session ends, and with it its sandbox and files, also if its contexts cannot be released."""
    marker = unique_seconds()
    with embedded(tmp_path) as (_, wire):
        session = wire.create(PersistenceDataList=[sync_item(create_context(wire), TOP)])
        wire.stdout(session, f"sleep {marker} >/dev/null 2>&1 &")
        (database,) = tmp_path.rglob("contexts.db")
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("DROP TABLE bindings")
        delete_and_wait(wire, session)
        assert not processes_with(marker)
        assert eventually(lambda: not list((tmp_path / "sessions").iterdir()))


def test_end_by_time(wire: Wire):
    """A session is uploaded when its lifetime ends."""
    context = create_context(wire)
    session = wire.create(PersistenceDataList=[sync_item(context, TOP)], Timeout=1)
    wire.stdout(session, f"mkdir -p {TOP}; echo 1 > {TOP}/f")
    assert eventually(lambda: wire.status(session) == "FINISH")
    assert context_files(wire, context, TOP) == {"f": b"1\n"}
