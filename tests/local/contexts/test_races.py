"""Walks over a mounted context while a session exchanges what it holds (TOCTOU)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentbay.local.contexts.directory_tree import ContextTree
from tests.local.contexts.actions import create_context, mount_item, sync_item, wait_for_transfers
from tests.local.raw import embedded
from tests.local.users import USERS, User

CANARY = "a secret of the host"
TOP = "/home/wuying/m"
EXCHANGE = "import ctypes\nwhile True: ctypes.CDLL(None).renameat2(-100, b'{}', -100, b'{}', 2)"


@contextmanager
def exchanging(first: Path, second: Path) -> Iterator[None]:
    """Exchange two names all the time, in a process of its own."""
    with subprocess.Popen([sys.executable, "-c", EXCHANGE.format(first, second)]) as process:
        try:
            yield
        finally:
            process.kill()


def plant(directory: Path, kind: str, outside: Path) -> Path:
    """Make something in a context that must not be opened as a file."""
    planted = directory / "planted"
    if kind == "link":
        planted.symlink_to(outside)
    elif kind == "directory link":
        planted.symlink_to(outside.parent)
    else:
        os.mkfifo(planted)
    return planted


@pytest.mark.parametrize("kind", ["link", "directory link", "fifo"])
def test_snapshot_holds_no_exchanged_file(tmp_path: Path, kind: str):
    """A snapshot holds what the context holds, though names are exchanged meanwhile."""
    outside, hold = tmp_path / "outside" / "result", tmp_path / "hold"
    outside.parent.mkdir()
    outside.write_text(CANARY)
    tree = ContextTree(tmp_path / "tree", (os.getuid(), os.getgid()))
    tree.create()
    victim = tree.top / ("folder" if kind == "directory link" else "result")
    if kind == "directory link":
        victim.mkdir()
        (victim / "result").write_text("mine")
    else:
        victim.write_text("mine")
    found = set()
    with exchanging(victim, plant(tree.top, kind, outside)):
        for turn in range(3000):
            place = hold / str(turn)
            place.mkdir(parents=True)
            snapshot = tree.snapshot("/", place)
            assert snapshot.unreadable == {}
            for entry in snapshot.entries:
                if entry.kind == "file":
                    held = place / entry.content_id
                    assert held.is_file(), (turn, entry)
                    assert not held.is_symlink(), (turn, entry)
                    found.add(held.read_text())
                if entry.kind == "link":
                    assert entry.target == str(outside if kind == "link" else outside.parent)
    assert found == {"mine"}


@pytest.mark.parametrize("somebody", USERS, indirect=True)
def test_downloads_of_an_exchanged_file(who: User):
    """No download brings a file of the host into a session, hangs, or fails."""
    outside = who.directory / "secret"
    outside.write_text(CANARY)
    outside.chmod(0o600)
    with embedded(who.directory / "state", **who.starts()) as (child, wire):
        context = create_context(wire)
        with wire.session(PersistenceDataList=[mount_item(context, TOP)]) as attacker:
            swap = EXCHANGE.format("result", "planted")
            wire.stdout(attacker, f'cd {TOP}; echo mine > result; ln -s {outside} planted; (python3 -c "{swap}" &)')
            wire.stdout(attacker, f"cd {TOP}; mkfifo pipe; echo mine > third; echo hold")
            wire.stdout(attacker, f'cd {TOP}; (python3 -c "{EXCHANGE.format("third", "pipe")}" >/dev/null 2>&1 &)')
            listed = [sync_item(context, TOP, uploadPolicy={"autoUpload": False})]
            with wire.session(PersistenceDataList=listed) as session:
                wait_for_transfers(wire, session)
                for _ in range(60):
                    wire.data("SyncContext", SessionId=session, ContextId=context, Path=TOP, Mode="download")
                    assert {one["status"] for one in wait_for_transfers(wire, session)} == {"Success"}
                    seen = wire.stdout(
                        session, f"cd {TOP}; for f in *; do [ -f $f ] && [ ! -L $f ] && cat $f; done; true"
                    )
                    assert CANARY not in seen
        assert child.close_stdin() == 0
        assert "Traceback" not in child.standard_error()


def test_unreadable_entries_do_not_keep_the_rest(tmp_path: Path):
    """What is nested too deeply is named, and all else is in the snapshot."""
    tree, hold = ContextTree(tmp_path / "tree", (os.getuid(), os.getgid())), tmp_path / "hold"
    tree.create()
    hold.mkdir()
    (tree.top / "z").write_text("important")
    deep = os.open(tree.top, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=deep)
        below = os.open("d", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = below
    os.close(deep)
    snapshot = tree.snapshot("/", hold)
    assert list(snapshot.unreadable.values()) == ["The directories are nested too deeply"]
    assert "z" in {entry.path for entry in snapshot.entries}


def test_flush_of_an_exchanged_directory(tmp_path: Path):
    """Flushing a directory that became a FIFO does not wait for a writer."""
    tree = ContextTree(tmp_path / "tree", (os.getuid(), os.getgid()))
    tree.create()
    os.mkfifo(tree.top / "pipe")
    tree.flush_directory("/pipe")
    tree.flush_directory("/pipe/below")
