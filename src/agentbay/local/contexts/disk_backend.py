"""What contexts hold, kept on this disk: a tree for each.

The files of a commit are first written to a staging directory and flushed; then one row in the database decides it;
then they are renamed into the tree, and the row is removed. Killed before the row, nothing has happened; killed after
it, the next start carries it out again, which does no harm.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from agentbay.local.contexts import keys
from agentbay.local.contexts.backend import CommitStep, Entry, Owner, StagingDirectory
from agentbay.local.contexts.context_database import ContextDatabase
from agentbay.local.contexts.directory_tree import ContextTree
from agentbay.local.state_dir import remove_tree

_MAX_SINGLE_FSYNCS, _FSYNC_THREADS = (
    500,
    16,
)  # files that are flushed one by one, so many at a time; beyond, the file system as a whole
_libc = ctypes.CDLL(None, use_errno=True)


class DiskBackend:
    """The contents in one directory; see `Contents`."""

    name_registry = None

    def __init__(self, directory: Path, owner: Owner, db: ContextDatabase, *, durable: bool) -> None:
        """Make the directory's parts.

        Args:
            durable: Wait for the disk, so that even a power failure loses nothing that was acknowledged.
        """
        self._directory, self._owner, self._db, self._durable = directory, owner, db, durable
        self._staging, self._trash = directory / "staging", directory / "trash"
        for made in (self._staging, self._trash):
            made.mkdir(exist_ok=True)

    def create(self, context_id: str) -> None:
        """See `Contents`."""
        self._context_directory(context_id).mkdir(mode=0o700)
        self.tree(context_id).create()

    def delete(self, context_id: str) -> None:
        """See `Contents`."""
        place = self._context_directory(context_id)
        if place.exists():
            trash = self._trash / f"{context_id}-{secrets.token_hex(4)}"
            place.rename(trash)
            remove_tree(trash)

    def clear(self, context_id: str) -> None:
        """See `Contents`; directories that sessions have mounted stay."""
        mounted = self._db.select("SELECT shown FROM bindings WHERE context = ? AND shown IS NOT NULL", context_id)
        self.tree(context_id).clear([keys.decode(key) for (key,) in mounted])
        with self._db.transaction():
            self._db.execute("DELETE FROM objects WHERE context = ?", context_id)
            if not mounted:
                self._db.execute("DELETE FROM mounts WHERE context = ?", context_id)
            self._db.execute("UPDATE contexts SET epoch = epoch + 1 WHERE id = ?", context_id)

    def epoch(self, context_id: str) -> int:
        """See `Contents`."""
        found = self._db.select("SELECT epoch FROM contexts WHERE id = ?", context_id)
        return int(found[0][0]) if found else 0

    @contextmanager
    def staging(self) -> Iterator[StagingDirectory]:
        """See `Contents`."""
        directory = self._staging / secrets.token_hex(8)
        directory.mkdir()
        try:
            yield StagingDirectory(directory, self._owner)
        finally:
            decided = "SELECT 1 FROM commits WHERE staging = ?"
            if not self._db.select(decided, directory.name):  # but could not be carried out, as when the disk was full
                remove_tree(directory)

    def prepare(self, context_id: str, staging: StagingDirectory, steps: Sequence[CommitStep]) -> None:
        """Wait until staged files are on the disk."""
        self._flush([*(staging.path(step[2]) for step in steps if step[0] == "put"), str(staging.directory)])

    def commit(
        self, context_id: str, staging: StagingDirectory, steps: Sequence[CommitStep], check: Callable[[], None]
    ) -> None:
        """See `Contents`."""
        with self._db.transaction():
            check()
            self._db.execute(
                "INSERT INTO commits (context, staging, steps) VALUES (?, ?, ?)",
                context_id,
                staging.directory.name,
                json.dumps(list(steps)),
            )
        self._apply_commits(context_id)

    def open_reader(self, context_id: str) -> _DiskReader:
        """See `Contents`."""
        self._apply_commits(context_id)
        self.clean_up(context_id)
        return _DiskReader(self.tree(context_id), self._db, context_id)

    def delete_path(self, context_id: str, key: str) -> bool:
        """See `Contents`."""
        return self.tree(context_id).delete(key, folder=True)

    def contexts_to_clean(self) -> list[str]:
        """See `Contents`."""
        due = "SELECT DISTINCT context FROM objects WHERE expires <= ?"
        return [context_id for (context_id,) in self._db.select(due, time.time())]

    def clean_up(self, context_id: str) -> None:
        """See `Contents`."""
        due, moment = "FROM objects WHERE context = ? AND expires <= ?", time.time()
        rows = self._db.select(f"SELECT key {due}", context_id, moment)
        for (key,) in rows:
            self.tree(context_id).delete(keys.decode(key))
        if rows:
            self._db.execute(f"DELETE {due}", context_id, moment)

    def recover(self, known: set[str]) -> None:
        """See `Contents`."""
        for (context_id,) in self._db.select("SELECT DISTINCT context FROM commits"):
            self._apply_commits(context_id)
        for place in self._directory.glob("SdkCtx-*"):
            if place.name not in known:  # made or deleted when the runtime was killed
                remove_tree(place)
        for left in (*self._staging.iterdir(), *self._trash.iterdir()):
            remove_tree(left)

    def tree(self, context_id: str) -> ContextTree:
        """See `Contents`."""
        return ContextTree(self._context_directory(context_id) / "tree", self._owner)

    def _context_directory(self, context_id: str) -> Path:
        return self._directory / context_id

    def _apply_commits(self, context_id: str) -> None:
        """Do what has been decided for a context."""
        decided = "SELECT number, staging, steps FROM commits WHERE context = ? ORDER BY number"
        for number, staging, text in self._db.select(decided, context_id):
            steps: list[CommitStep] = json.loads(text)
            tree = self.tree(context_id)
            for step in steps:
                _apply_step(tree, self._staging / staging, step)
            self._flush([f"{tree.top}{above}" for above in {os.path.dirname(step[1]) for step in steps}])
            with self._db.transaction():
                self._record_objects(context_id, steps)
                self._db.execute("DELETE FROM commits WHERE number = ?", number)

    def _record_objects(self, context_id: str, steps: Sequence[CommitStep]) -> None:
        """Keep what the tree does not tell of objects."""
        forgotten = [(context_id, keys.encode(step[1])) for step in steps if step[0] in ("put", "delete", "link")]
        self._db.execute_many("DELETE FROM objects WHERE context = ? AND key = ?", forgotten)
        told = [step for step in steps if step[0] == "put" and (step[3] is not None or step[4])]
        rows = [(context_id, keys.encode(key), expires, archive) for _, key, _, expires, archive in told]
        self._db.execute_many("INSERT INTO objects VALUES (?, ?, ?, ?)", rows)

    def _flush(self, paths: Sequence[str]) -> None:
        if not self._durable:
            return
        if len(paths) > _MAX_SINGLE_FSYNCS:
            self._sync()
            return
        with ThreadPoolExecutor(_FSYNC_THREADS) as threads:  # the disk takes many at a time
            list(threads.map(_flush_one, paths))

    def _sync(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.syncfs(fd):
                raise OSError(ctypes.get_errno(), "syncfs")
        finally:
            os.close(fd)


class _DiskReader:
    """See `View`."""

    def __init__(self, tree: ContextTree, db: ContextDatabase, context_id: str) -> None:
        self._tree, self._db, self._context_id = tree, db, context_id

    def open(self, key: str) -> IO[bytes]:
        """See `View`."""
        return open(self._tree.open(key), "rb")

    def children(self, key: str) -> list[Entry]:
        """See `View`."""
        return self._tree.children(key)

    def snapshot(self, key: str, staging: StagingDirectory, only: str = "") -> _DiskSnapshot:
        """See `View`."""
        return _DiskSnapshot(staging.directory, self._tree.snapshot(key, staging.directory, only))

    def archive_keys(self, top: str) -> list[str]:
        """See `View`."""
        rows = self._db.select("SELECT key FROM objects WHERE context = ? AND archive", self._context_id)
        return [key for key in (keys.decode(row[0]) for row in rows) if keys.relative_to(key, top)]


class _DiskSnapshot:
    """See `Snapshot`: each file is held by a second link."""

    def __init__(self, hold: Path, entries: list[Entry]) -> None:
        self._hold, self.entries = hold, entries

    def open(self, entry: Entry) -> IO[bytes]:
        """See `Snapshot`."""
        return open(self._hold / entry.content_id, "rb")

    def iterate_files(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, IO[bytes]]]:
        """See `Snapshot`."""
        for entry in entries:
            with self.open(entry) as file:
                yield entry, file


def _apply_step(tree: ContextTree, staging: Path, step: CommitStep) -> None:
    match step:
        case ["put", key, name, *_]:
            tree.put(key, str(staging / name))
        case ["dir", key, mode]:
            tree.make_directory(key, mode)
        case ["link", key, target]:
            tree.link(key, target)
        case ["delete", key]:
            tree.delete(key)
        case unknown:
            raise ValueError(unknown)


def _flush_one(path: str) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # a directory that went with what was in it, or whose path is too long
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
