"""The storage backend on this disk: directory trees and a write-ahead log.

The files of a commit are written to a staging directory and flushed with fsync. One row in the table of commits, the
write-ahead log, then decides the commit. Its steps are applied by renames into the tree, and the row is deleted. A
runtime that is killed before the row exists has changed nothing. One that is killed after it applies the steps again at
its next start, and they are idempotent.
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
from itertools import groupby
from pathlib import Path
from typing import IO

from agentbay.local.contexts import keys
from agentbay.local.contexts.backend import CommitStep, StagingDirectory, check_replacements
from agentbay.local.contexts.context_database import ContextDatabase
from agentbay.local.contexts.directory_tree import ContextTree, TreeSnapshot
from agentbay.local.contexts.entry import Entry, Owner
from agentbay.local.sandbox.shared import dirfd
from agentbay.local.sandbox.shared.fd_io import closing_fd
from agentbay.local.state_dir import remove_tree, spread_directories

_MAX_SINGLE_FSYNCS = 500  # files; for more than these, one syncfs of the whole file system is faster
_FSYNC_THREADS = 16
_libc = ctypes.CDLL(None, use_errno=True)


class DiskBackend:
    """The contents of all contexts below one directory."""

    name_registry = None

    def __init__(self, directory: Path, owner: Owner, db: ContextDatabase, *, durable: bool) -> None:
        """Make the directories for staging and trash.

        Args:
            durable: Wait for the disk, so that a power failure loses nothing acknowledged.
        """
        self._directory, self._owner, self._db, self._durable = directory, owner, db, durable
        self._staging, self._trash = directory / "staging", directory / "trash"
        for made in (self._staging, self._trash):
            made.mkdir(exist_ok=True)
        for above in (directory, self._staging):
            spread_directories(above)

    def create(self, context_id: str) -> None:
        self._context_directory(context_id).mkdir(mode=0o700)
        self.tree(context_id).create()

    def delete(self, context_id: str) -> None:
        place = self._context_directory(context_id)
        if place.exists():
            trash = self._trash / f"{context_id}-{secrets.token_hex(4)}"
            # One rename takes the whole context away. After a kill from here on, `recover` empties the trash.
            place.rename(trash)
            remove_tree(trash)

    def clear(self, context_id: str) -> None:
        """Clear the tree, but keep the directories that sessions have mounted."""
        mounted = self._db.select("SELECT shown FROM bindings WHERE context = ? AND shown IS NOT NULL", context_id)
        self.tree(context_id).clear([keys.decode(key) for (key,) in mounted])
        with self._db.transaction():
            self._db.execute("DELETE FROM objects WHERE context = ?", context_id)
            if not mounted:
                self._db.execute("DELETE FROM mounts WHERE context = ?", context_id)
            self._db.execute("UPDATE contexts SET epoch = epoch + 1 WHERE id = ?", context_id)

    def epoch(self, context_id: str) -> int:
        found = self._db.select("SELECT epoch FROM contexts WHERE id = ?", context_id)
        return int(found[0][0]) if found else 0

    @contextmanager
    def staging(self) -> Iterator[StagingDirectory]:
        staging = StagingDirectory(self._staging, self._owner)
        try:
            yield staging
        finally:
            # a commit that was decided but not applied, as on a full disk, still needs its files
            if not self._db.select("SELECT 1 FROM commits WHERE staging = ?", staging.directory.name):
                remove_tree(staging.directory)

    def prepare(self, context_id: str, staging: StagingDirectory, steps: Sequence[CommitStep]) -> None:
        """Flush the staged files to the disk."""
        staged = [staging.path(step[2]) for step in steps if step[0] == "put"]
        self._flush(_flush_file, [*staged, str(staging.directory)])

    def commit(
        self, context_id: str, staging: StagingDirectory, steps: Sequence[CommitStep], check: Callable[[], None]
    ) -> None:
        with self._db.transaction():
            check()
            check_replacements(self.tree(context_id), steps)
            self._db.execute(
                "INSERT INTO commits (context, staging, steps) VALUES (?, ?, ?)",
                context_id,
                staging.directory.name,
                json.dumps(list(steps)),
            )
        self._apply_commits(context_id)

    def open_reader(self, context_id: str) -> _DiskReader:
        self._apply_commits(context_id)
        # Expired files must not be served, however long ago the last periodic cleanup was.
        self.clean_up(context_id)
        return _DiskReader(self.tree(context_id), self._db, context_id)

    def delete_path(self, context_id: str, key: str) -> bool:
        return self.tree(context_id).delete(key, folder=True)

    def contexts_to_clean(self) -> list[str]:
        due = "SELECT DISTINCT context FROM objects WHERE expires <= ?"
        return [context_id for (context_id,) in self._db.select(due, time.time())]

    def clean_up(self, context_id: str) -> None:
        due, moment = "FROM objects WHERE context = ? AND expires <= ?", time.time()
        rows = self._db.select(f"SELECT key {due}", context_id, moment)
        for (key,) in rows:
            self.tree(context_id).delete(keys.decode(key))
        if rows:
            self._db.execute(f"DELETE {due}", context_id, moment)

    def recover(self, known: set[str]) -> None:
        for (context_id,) in self._db.select("SELECT DISTINCT context FROM commits"):
            self._apply_commits(context_id)
        for place in self._directory.glob("SdkCtx-*"):
            if place.name not in known:  # being made or deleted when the runtime was killed
                remove_tree(place)
        for left in (*self._staging.iterdir(), *self._trash.iterdir()):
            remove_tree(left)

    def tree(self, context_id: str) -> ContextTree:
        return ContextTree(self._context_directory(context_id) / "tree", self._owner)

    def _context_directory(self, context_id: str) -> Path:
        return self._directory / context_id

    def _apply_commits(self, context_id: str) -> None:
        """Apply the commits of a context that stand in the write-ahead log."""
        decided = "SELECT number, staging, steps FROM commits WHERE context = ? ORDER BY number"
        for number, staging, text in self._db.select(decided, context_id):
            steps: list[CommitStep] = json.loads(text)
            tree = self.tree(context_id)
            for is_put, group in groupby(steps, lambda step: step[0] == "put"):
                if is_put:
                    tree.put((step[1], f"{self._staging}/{staging}/{step[2]}") for step in group)
                else:
                    for step in group:
                        _apply_step(tree, step)
            # The renames must be on the disk before the log forgets them, or a power failure would lose the commit.
            self._flush(tree.flush_directory, sorted({os.path.dirname(step[1]) for step in steps}))
            with self._db.transaction():
                self._record_objects(context_id, steps)
                self._db.execute("DELETE FROM commits WHERE number = ?", number)

    def _record_objects(self, context_id: str, steps: Sequence[CommitStep]) -> None:
        """Record the attributes of files that the tree has no place for."""
        replaced = [(context_id, keys.encode(step[1])) for step in steps if step[0] in ("put", "delete", "link")]
        self._db.execute_many("DELETE FROM objects WHERE context = ? AND key = ?", replaced)
        recorded = [step for step in steps if step[0] == "put" and (step[3] is not None or step[4])]
        rows = [(context_id, keys.encode(key), expires, archive) for _, key, _, expires, archive in recorded]
        self._db.execute_many("INSERT INTO objects VALUES (?, ?, ?, ?)", rows)

    def _flush(self, flush: Callable[[str], None], paths: Sequence[str]) -> None:
        if not self._durable:
            return
        if len(paths) > _MAX_SINGLE_FSYNCS:
            self._flush_file_system()
            return
        with ThreadPoolExecutor(_FSYNC_THREADS) as threads:  # the disk merges flushes that wait at the same time
            list(threads.map(flush, paths))

    def _flush_file_system(self) -> None:
        with closing_fd(os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)) as fd:
            if _libc.syncfs(fd):
                raise OSError(ctypes.get_errno(), "syncfs")


class _DiskReader:
    """Read access to the tree of one context."""

    def __init__(self, tree: ContextTree, db: ContextDatabase, context_id: str) -> None:
        self._tree, self._db, self._context_id = tree, db, context_id

    def open(self, key: str) -> IO[bytes]:
        return open(self._tree.open(key), "rb")

    def children(self, key: str) -> list[Entry]:
        return self._tree.children(key)

    def snapshot(self, key: str, staging: StagingDirectory, only: str = "") -> _DiskSnapshot:
        return _DiskSnapshot(staging.directory, self._tree.snapshot(key, staging.directory, only))

    def archive_keys(self, top: str) -> list[str]:
        rows = self._db.select("SELECT key FROM objects WHERE context = ? AND archive", self._context_id)
        return [key for key in (keys.decode(row[0]) for row in rows) if keys.relative_to(key, top)]


class _DiskSnapshot:
    """A snapshot of hard links in a staging directory."""

    def __init__(self, hold: Path, found: TreeSnapshot) -> None:
        self._hold, self.entries, self.unreadable = hold, found.entries, found.unreadable

    def open(self, entry: Entry, buffering: int = -1) -> IO[bytes]:
        return open(os.open(f"{self._hold}/{entry.content_id}", dirfd.FILE_OPEN_FLAGS), "rb", buffering)

    def iterate_files(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, IO[bytes]]]:
        for entry in entries:
            try:
                file = self.open(entry, buffering=0)  # all is read in large pieces, and a buffer takes two calls more
            except OSError as error:
                self.unreadable[entry.path] = error.strerror or str(error)
                continue
            with file:
                yield entry, file


def _apply_step(tree: ContextTree, step: CommitStep) -> None:
    match step:
        case ["dir", key, mode]:
            tree.make_directory(key, mode)
        case ["link", key, target]:
            tree.link(key, target)
        case ["delete", key]:
            tree.delete(key)
        case unknown:
            raise ValueError(unknown)


def _flush_file(path: str) -> None:
    with closing_fd(os.open(path, dirfd.FILE_OPEN_FLAGS)) as fd:
        os.fsync(fd)
