"""What a killed runtime leaves behind, and what the next one knows."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentbay.local.sandbox.service import cgroups
from agentbay.local.sessions import records
from tests.local.raw import KEY, Child, Refused, Wire, embedded
from tests.local.traces import PATIENCE, eventually, mounts_with, processes_with, unique_seconds
from tests.local.users import User


def rows(state_dir: Path) -> list[dict[str, Any]]:
    """The records of all sessions, once the database has been found whole."""
    with contextlib.closing(sqlite3.connect(state_dir / "sessions.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute("SELECT * FROM sessions")]


def groups_of(pids: set[int]) -> list[str]:
    """Return the control groups of dead runtimes, by the pids that they had."""
    trees = cgroups._find_hierarchies(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
    found = []
    for tree in trees:
        for place in Path(tree.base).glob("agentbay-*-*"):
            _, pid, started = place.name.split("-")
            if int(pid) in pids and cgroups._process_start_time(int(pid)) != started:
                found.append(str(place))
    return found


class Told:
    """The labels that clients were told, and those of a call without an answer."""

    def __init__(self) -> None:
        self.labels: dict[str, list[dict[str, str]]] = {}
        self.marker = unique_seconds()
        self.pids: set[int] = set()  # of runtimes that were killed


def use(url: str, told: Told, seed: int) -> None:
    """Make, label, use, pause and delete sessions until nobody answers."""
    choices, wire = random.Random(seed), Wire(url)
    with wire.http, contextlib.suppress(httpx.TransportError, ValueError):
        for number in range(1_000_000):
            session = wire.create(Labels={"n": str(number)})
            told.labels[session] = [{"n": str(number)}]
            wire.stdout(session, f"setsid sleep {told.marker} >/dev/null 2>&1 & echo x > file")
            told.labels[session].append({"again": str(number)})
            wire.data("SetLabel", SessionId=session, Labels={"again": str(number)})
            del told.labels[session][0]
            if choices.random() < 0.5:
                wire.data("PauseSessionAsync", SessionId=session)
            if choices.random() < 0.3:
                wire.data("ResumeSessionAsync", SessionId=session) if wire.status(session) == "PAUSED" else None
            if choices.random() < 0.5:
                wire.data("DeleteSessionAsync", SessionId=session)


def check(state_dir: Path, wire: Wire, told: Told) -> None:
    """Check that dead sessions leave nothing, and that their details are known."""
    assert wire.data("ListSession", MaxResults=100) == []
    assert not list((state_dir / "sessions").iterdir())
    assert eventually(lambda: processes_with(told.marker) == [])
    assert eventually(lambda: mounts_with(f"{state_dir}/") == [])
    assert eventually(lambda: groups_of(told.pids) == [])
    assert eventually(lambda: not list((state_dir / "trash").iterdir()))
    kept = {row["id"]: row for row in rows(state_dir)}
    assert {row["state"] for row in kept.values()} <= {"FINISH"}
    assert all(row["ended"] for row in kept.values())
    for session, labels in told.labels.items():
        assert json.loads(kept[session]["labels"]) in labels
        assert wire.status(session) == "FINISH"
    for session in list(told.labels)[-2:]:
        for action in ("GetSession", "CallMcpTool", "GetLabel", "PauseSessionAsync"):
            more = {"Name": "shell", "Args": {"command": "true"}} if action == "CallMcpTool" else {}
            with pytest.raises(Refused) as refused:
                wire.data(action, SessionId=session, **more)
            assert refused.value.code == "InvalidMcpSession.NotFound"


def kill_while_it_starts(who: User, seconds: float) -> int:
    """Start a runtime, kill it after some seconds, and return its pid."""
    command = [*who.become, who.interpreter, "-m", "agentbay.local", "--state-dir", str(who.directory)]
    pipe, null, environment = subprocess.PIPE, subprocess.DEVNULL, {**os.environ, **who.environment}
    with subprocess.Popen(command, stdin=pipe, stdout=null, stderr=null, env=environment) as child:
        assert child.stdin is not None
        child.stdin.write(f"{KEY}\n".encode())
        child.stdin.flush()
        time.sleep(seconds)
        child.kill()
    return child.pid


@pytest.mark.parametrize("rounds", [5, pytest.param(100, marks=pytest.mark.soak)])
def test_killed_at_any_moment(who: User, rounds: int):
    """Whenever a runtime is killed, the next one finds nothing left but the records."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    moments, told, state_dir = random.Random(seed), Told(), who.directory
    for _ in range(rounds):
        if moments.random() < 0.3:
            told.pids.add(kill_while_it_starts(who, moments.uniform(0.1, 0.5)))
        with embedded(state_dir, **who.starts()) as (child, wire):
            check(state_dir, wire, told)
            told = Told()
            users = [threading.Thread(target=use, args=(wire.url, told, moments.random())) for _ in range(4)]
            for user in users:
                user.start()
            time.sleep(moments.uniform(0.0, 0.4))
            child.process.kill()
            told.pids.add(child.process.pid)
            for user in users:
                user.join(60)
                assert not user.is_alive()
    with embedded(state_dir, **who.starts()) as (child, wire):
        check(state_dir, wire, told)
        assert child.close_stdin() == 0
        assert "Traceback" not in child.standard_error()


def test_pages_go_on_after_a_restart(tmp_path: Path):
    """A later runtime's sessions are listed after an earlier one's."""
    with embedded(tmp_path) as (child, wire):
        for _ in range(3):
            wire.create()
        token = wire.envelope("ListSession", MaxResults=2)["NextToken"]
        child.send(signal.SIGKILL)
    with embedded(tmp_path) as (_, wire):
        made = wire.create()
        page = wire.envelope("ListSession", MaxResults=2, NextToken=token)
        assert [item["SessionId"] for item in page["Data"]] == [made]


def test_records_are_pruned(tmp_path: Path):
    """Ended sessions are forgotten after a day, or beyond ten thousand."""
    with embedded(tmp_path) as (child, wire):
        old, middle = wire.create(), wire.create()
        for session in old, middle:
            wire.data("DeleteSessionAsync", SessionId=session)
        assert child.close_stdin() == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "sessions.db")) as db, db:
        db.execute("UPDATE sessions SET ended = ended - ? WHERE id = ?", (records.RETENTION_SECONDS, old))
    with embedded(tmp_path) as (child, wire):
        assert wire.status(old) == "FINISH"
        new = wire.create()
        wire.data("DeleteSessionAsync", SessionId=new)
        assert eventually(lambda: [row["id"] for row in rows(tmp_path)] == [middle, new])
        with pytest.raises(Refused):
            wire.status(old)
        assert child.close_stdin() == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "sessions.db")) as db, db:
        db.execute("UPDATE sqlite_sequence SET seq = seq + ?", (records.RETENTION_ROWS,))
    with embedded(tmp_path) as (_, wire):
        newest = wire.create()
        wire.data("DeleteSessionAsync", SessionId=newest)
        assert eventually(lambda: [row["id"] for row in rows(tmp_path)] == [newest])


@pytest.mark.parametrize("damage", [b"no database", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_database(tmp_path: Path, damage: bytes):
    """A damaged database is named in the error and left as it is."""
    (tmp_path / "sessions.db").write_bytes(damage)
    with Child(["-m", "agentbay.local", "--state-dir", str(tmp_path)]) as child:
        assert (child.line, child.process.wait(PATIENCE)) == ("", 1)
        assert f"The database {tmp_path}/sessions.db cannot be used: " in child.standard_error()
        assert "another --state-dir" in child.standard_error()
        assert "Traceback" not in child.standard_error()
    assert (tmp_path / "sessions.db").read_bytes() == damage


class SmallDisk:
    """A state directory on a small disk that only the runtime sees."""

    SIZE = 24 << 20

    def __init__(self, who: User) -> None:
        self._who = who

    def start(self, *, full: bool = False) -> Child:
        directory = str(self._who.directory)
        fill = '; head -c 99999999 /dev/zero > "$0/filler" || true' if full else ""
        script = f'mount -t tmpfs -o size={self.SIZE},mode=700 none "$0" {fill}; exec "$@"'
        # a user that is not root keeps its id, and with it the rights over its own mounts
        own = [] if self._who.is_root else ["--user", "--map-current-user", "--keep-caps"]
        within = self._who.starts("unshare", *own, "--mount", "sh", "-ec", script, directory)
        return Child(["-m", "agentbay.local", "--state-dir", directory], **within)

    @contextlib.contextmanager
    def runtime(self) -> Any:
        with self.start() as child:
            wire = Wire(child.url)
            self.seen = Path(f"/proc/{child.process.pid}/root{self._who.directory}")
            with wire.http:
                yield child, wire

    def fill(self) -> None:
        # as its user: to root of another namespace, nothing here can belong
        command = [*self._who.become, "sh", "-c", 'cat /dev/zero > "$0"', str(self.seen / "filler")]
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert "No space left" in done.stderr

    def empty(self) -> None:
        (self.seen / "filler").unlink()


def test_a_full_disk(who: User, tmp_path: Path):
    """On a full disk, new work is refused, and what is there goes on."""
    disk = SmallDisk(who)
    with disk.runtime() as (child, wire):
        session, other = wire.create(Labels={"a": "1"}), wire.create()
        disk.fill()
        for action, fields in (
            ("CreateMcpSession", {}),
            ("SetLabel", {"SessionId": session, "Labels": {"b": "x" * 50_000}}),
        ):
            with pytest.raises(Refused) as refused:
                wire.data(action, **fields)
            assert (refused.value.status, refused.value.code) == (507, "InsufficientStorage"), refused.value.message
            assert "The state directory cannot be written" in refused.value.message
        assert json.loads(wire.data("GetLabel", SessionId=session)["Labels"]) == {"a": "1"}
        assert wire.stdout(session, "echo on") == "on\n"
        wire.data("PauseSessionAsync", SessionId=session)
        assert wire.status(session) == "PAUSED"
        wire.data("ResumeSessionAsync", SessionId=session)
        wire.data("DeleteSessionAsync", SessionId=other)
        assert eventually(lambda: wire.status(other) == "FINISH")
        disk.empty()
        wire.data("SetLabel", SessionId=session, Labels={"b": "2"})
        assert wire.status(wire.create()) == "RUNNING"
        for name in "sessions.db", "sessions.db-wal":  # SQLite would go to where the path leads outside of that disk
            shutil.copy(disk.seen / name, tmp_path)
        assert {row["id"]: json.loads(row["labels"]) for row in rows(tmp_path)}[session] == {"b": "2"}
        assert child.close_stdin() == 0
        complaints = child.standard_error()
        assert "Traceback" not in complaints
        assert f"the state of {other} could not be kept" in complaints or "ERROR" not in complaints


def test_a_disk_that_is_full_at_the_start(who: User):
    """A runtime that cannot begin to keep its state says so in one line."""
    with SmallDisk(who).start(full=True) as child:
        assert (child.line, child.process.wait(PATIENCE)) == ("", 1)
        complaints = [line for line in child.standard_error().splitlines() if not line.startswith("head:")]
        assert len(complaints) == 1
        assert "cannot be" in complaints[0]
