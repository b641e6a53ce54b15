"""The contexts there are: names, states and bindings in SQLite, contents as trees on disk.

A commit changes many files of a context at once. They are first written to a staging directory and flushed; then one
row in the database decides it; then the files are renamed into the tree, and the row is removed. Killed before the row,
nothing has happened; killed after it, the next start carries it out again, which does no harm.

All of this blocks; it is meant for threads.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentbay.local.contexts import keys, schema
from agentbay.local.contexts.content import Content, Owner
from agentbay.local.contexts.refusals import name_taken, no_context, not_now
from agentbay.local.session import make_id
from agentbay.local.state_dir import erase

_FEW, _FLUSHES = 500, 16  # files that are flushed one by one, so many at a time; beyond, the file system as a whole
_libc = ctypes.CDLL(None, use_errno=True)

Step = list[
    Any
]  # ["put", key, staged, expires, archive] | ["dir", key, mode] | ["link", key, target] | ["delete", key]


@dataclass(frozen=True, slots=True)
class Context:
    """A context; `state` is available, in-use or clearing, times are seconds since 1970."""

    number: int
    id: str
    name: str
    created: float
    used: float
    state: str
    epoch: int


class Staging:
    """A directory for files that are on their way into a context."""

    def __init__(self, directory: Path, owner: Owner) -> None:
        self.directory, self._owner, self._made = directory, owner, 0

    def create(self, mode: int = 0o644, mtime_ns: int | None = None) -> tuple[str, int]:
        """Make a file; return its name and a descriptor for the caller to fill and close."""
        self._made += 1
        name = str(self._made)
        fd = os.open(self.directory / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.fchown(fd, *self._owner)
        os.fchmod(fd, (mode & 0o777) | 0o600)  # one that its owner could not read would be lost
        if mtime_ns is not None:
            os.utime(fd, ns=(mtime_ns, mtime_ns))
        return name, fd

    def path(self, name: str) -> str:
        """Where a file is."""
        return str(self.directory / name)


class Store:
    """The contexts in one directory."""

    def __init__(
        self, directory: Path, owner: Owner, *, durable: bool = True, clock: Callable[[], float] = time.time
    ) -> None:
        """Open the store, and carry out or undo what a killed runtime has left half done.

        Args:
            owner: Who files in contexts belong to: the user that sandboxes run as.
            durable: Wait for the disk, so that even a power failure loses nothing that was acknowledged.

        Raises:
            ConfigurationError: The store is damaged.
        """
        directory.mkdir(mode=0o700, exist_ok=True)
        self._directory, self._owner, self._durable, self._clock = directory, owner, durable, clock
        self._staging, self._trash = directory / "staging", directory / "trash"
        for made in (self._staging, self._trash):
            made.mkdir(exist_ok=True)
        self._db = schema.connect(directory / "contexts.db", durable=durable)
        self._writing = threading.RLock()  # one connection, one writer
        self._locks: dict[str, threading.RLock] = {}
        self._recover()

    def close(self) -> None:
        """Close."""
        with self._writing:
            self._db.close()

    @property
    def now(self) -> float:
        """The time by the store's clock."""
        return self._clock()

    # contexts

    def find(self, context_id: str) -> Context:
        """Return a context.

        Raises:
            NotFoundError: There is none.
        """
        return self._one("id = ?", context_id)

    def named(self, name: str) -> Context:
        """Return the context of that name."""
        return self._one("name = ?", name)

    def obtain(self, name: str) -> Context:
        """Return the context of that name, made if there is none."""
        with self._transaction():
            if self._rows("name = ?", name):
                return self.named(name)
            return self._make(name)

    def make_internal(self) -> Context:
        """Make a context without a name, for a session's own purposes."""
        with self._transaction():
            return self._make(None)

    def page(self, after: int, size: int, session: str | None) -> tuple[list[Context], int]:
        """Return up to `size` contexts made after the one of that number, and how many there are in all."""
        condition, values = "name IS NOT NULL", []
        if session:
            condition += " AND id IN (SELECT context FROM bindings WHERE session = ?)"
            values = [session]
        found = self._rows(condition, *values)
        return [context for context in found if context.number > after][:size], len(found)

    def rename(self, context_id: str, name: str) -> None:
        """Give a context another name.

        Raises:
            ConflictError: Another one has it.
        """
        with self._transaction():
            self.find(context_id)
            if any(context.id != context_id for context in self._rows("name = ?", name)):
                raise name_taken(name)
            self._db.execute("UPDATE contexts SET name = ? WHERE id = ?", (name, context_id))

    def delete(self, context_id: str) -> None:
        """Delete a context and all it holds."""
        with self._locked(context_id):
            with self._transaction():
                self.find(context_id)
                self._db.execute("DELETE FROM contexts WHERE id = ?", (context_id,))
            trash = self._trash / f"{context_id}-{secrets.token_hex(4)}"
            self._place(context_id).rename(trash)
        erase(trash)

    def begin_clear(self, context_id: str) -> None:
        """Say that a context is being cleared; `clear` must follow, and does at the next start at the latest."""
        with self._transaction():
            self.find(context_id)
            self._db.execute("UPDATE contexts SET clearing = 1 WHERE id = ?", (context_id,))

    def clear(self, context_id: str) -> None:
        """Delete all files of a context."""
        with self._locked(context_id):
            mounted = self._select("SELECT shown FROM bindings WHERE context = ? AND shown IS NOT NULL", context_id)
            self.content(context_id).clear([keys.decode(key) for (key,) in mounted])
            with self._transaction():
                self._db.execute("DELETE FROM objects WHERE context = ?", (context_id,))
                if not mounted:
                    self._db.execute("DELETE FROM mounts WHERE context = ?", (context_id,))
                self._db.execute(
                    "UPDATE contexts SET clearing = 0, cleared = 1, epoch = epoch + 1 WHERE id = ?", (context_id,)
                )

    # files

    def content(self, context_id: str) -> Content:
        """Return the tree of a context."""
        return Content(self._place(context_id) / "tree", self._owner)

    @contextmanager
    def reading(self, context_id: str) -> Iterator[Content]:
        """Keep commits out while files are looked for; those that are overdue are gone before."""
        with self._locked(context_id):
            self.find(context_id)
            self._carry_out(context_id)
            self._expire(context_id)
            yield self.content(context_id)

    @contextmanager
    def staging(self) -> Iterator[Staging]:
        """Make a staging directory, removed at the end."""
        directory = self._staging / secrets.token_hex(8)
        directory.mkdir()
        try:
            yield Staging(directory, self._owner)
        finally:
            if not self._select("SELECT 1 FROM commits WHERE staging = ?", directory.name):  # as when a disk was full
                erase(directory)

    def commit(self, context_id: str, staging: Staging, steps: Sequence[Step]) -> None:
        """Do all of the steps or none of them, whatever happens; when this returns, they are done.

        Raises:
            NotFoundError: The context has been deleted.
            ConflictError: It is being cleared.
        """
        self._flush(staging, steps)
        with self._locked(context_id):
            with self._transaction():
                if self.find(context_id).state == "clearing":
                    raise not_now(context_id)
                self._db.execute(
                    "INSERT INTO commits (context, staging, steps) VALUES (?, ?, ?)",
                    (context_id, staging.directory.name, json.dumps(list(steps))),
                )
            self._carry_out(context_id)

    def archives(self, context_id: str, top: str) -> list[str]:
        """Return the keys below `top` that upload mode Archive has made."""
        rows = self._select("SELECT key FROM objects WHERE context = ? AND archive", context_id)
        return [key for key in (keys.decode(row[0]) for row in rows) if keys.below(key, top)]

    def expire_all(self) -> None:
        """Delete what is overdue, in all contexts."""
        due = "SELECT DISTINCT context FROM objects WHERE expires <= ?"
        for (context_id,) in self._select(due, self.now):
            with self._locked(context_id):
                self._expire(context_id)

    # mounts and bindings

    def mount_key(self, context_id: str, path: str) -> str:
        """Return the key that a mount at `path` shows: `path` itself if the context has files there or has never been
        mounted, else that of its first mount, so that a context shows the same wherever it is mounted.
        """
        own = keys.encode(path)
        with self._transaction():
            self.find(context_id)
            rows = dict(self._select("SELECT path, key FROM mounts WHERE context = ? ORDER BY path <> key", context_id))
            key: bytes = rows.get(own) or (
                own if not rows or self.content(context_id).exists(path) else next(iter(rows.values()))
            )
            self._db.execute("INSERT OR IGNORE INTO mounts VALUES (?, ?, ?)", (context_id, own, key))
        return keys.decode(key)

    def locate(self, context_id: str, key: str) -> str:
        """Return where a key really is: below the path of a mount, it is in the directory that is mounted there."""
        rows = self._select("SELECT path, key FROM mounts WHERE context = ?", context_id)
        for path, target in sorted(rows, key=lambda row: -len(row[0])):
            if (rest := keys.below(key, keys.decode(path))) is not None:
                return keys.join(keys.decode(target), rest)
        return key

    def bind(self, session: str, context_id: str, path: str, shown: str | None = None) -> float:
        """Note that a session has a context, mounted if `shown` is the key of a directory; return when."""
        now = self.now
        row = (session, context_id, keys.encode(path), now, None if shown is None else keys.encode(shown))
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO bindings VALUES (?, ?, ?, ?, ?)", row)
            self._db.execute("UPDATE contexts SET used = ?, cleared = 0 WHERE id = ?", (now, context_id))
        return now

    def unbind(self, session: str) -> None:
        """Forget what a session had."""
        with self._transaction():
            self._db.execute("DELETE FROM bindings WHERE session = ?", (session,))

    # within

    def _place(self, context_id: str) -> Path:
        return self._directory / context_id

    def _make(self, name: str | None) -> Context:
        context_id = make_id("SdkCtx-", 21)
        self._place(context_id).mkdir(mode=0o700)
        self.content(context_id).create()
        now = self.now
        self._db.execute(
            "INSERT INTO contexts (id, name, created, used) VALUES (?, ?, ?, ?)", (context_id, name, now, now)
        )
        return self.find(context_id)

    def _one(self, condition: str, value: str) -> Context:
        found = self._rows(condition, value)
        if not found:
            raise no_context(value)
        return found[0]

    def _rows(self, condition: str, *values: object) -> list[Context]:
        state = (
            "CASE WHEN clearing THEN 'clearing' WHEN NOT cleared AND EXISTS "
            "(SELECT 1 FROM bindings WHERE context = contexts.id) THEN 'in-use' ELSE 'available' END"
        )
        fields = f"number, id, coalesce(name, ''), created, used, {state}, epoch"
        query = f"SELECT {fields} FROM contexts WHERE {condition} ORDER BY number"  # noqa: S608 - all of it stands above
        return [Context(*row) for row in self._select(query, *values)]

    def _select(self, query: str, *values: object) -> list[Any]:
        with self._writing:
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._writing:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _locked(self, context_id: str) -> Iterator[None]:
        with self._writing:
            lock = self._locks.setdefault(context_id, threading.RLock())
        with lock:
            yield

    def _carry_out(self, context_id: str) -> None:
        """Do what has been decided for a context."""
        rows = self._select("SELECT number, staging, steps FROM commits WHERE context = ? ORDER BY number", context_id)
        for number, staging, text in rows:
            steps: list[Step] = json.loads(text)
            content = self.content(context_id)
            for step in steps:
                self._do(content, self._staging / staging, step)
            self._flush_all([f"{content.top}{above}" for above in {os.path.dirname(step[1]) for step in steps}])
            with self._transaction():
                self._db.executemany(*self._facts(context_id, steps))
                self._db.execute("DELETE FROM commits WHERE number = ?", (number,))
                self._db.execute("UPDATE contexts SET used = ?, cleared = 0 WHERE id = ?", (self.now, context_id))

    def _do(self, content: Content, staging: Path, step: Step) -> None:
        match step:
            case ["put", key, name, *_]:
                content.put(key, str(staging / name))
            case ["dir", key, mode]:
                content.make_directory(key, mode)
            case ["link", key, target]:
                content.link(key, target)
            case ["delete", key]:
                content.delete(key)
            case unknown:
                raise ValueError(unknown)

    def _facts(self, context_id: str, steps: Sequence[Step]) -> tuple[str, list[tuple[object, ...]]]:
        """Return the statement, and its values, that keeps what the tree does not tell of objects."""
        forgotten = [(context_id, keys.encode(step[1])) for step in steps if step[0] in ("put", "delete", "link")]
        self._db.executemany("DELETE FROM objects WHERE context = ? AND key = ?", forgotten)
        told = [step for step in steps if step[0] == "put" and (step[3] is not None or step[4])]
        values: list[tuple[object, ...]] = [
            (context_id, keys.encode(key), expires, archive) for _, key, _, expires, archive in told
        ]
        return "INSERT INTO objects VALUES (?, ?, ?, ?)", values

    def _expire(self, context_id: str) -> None:
        due = "FROM objects WHERE context = ? AND expires <= ?"
        moment = self.now
        rows = self._select(f"SELECT key {due}", context_id, moment)
        for (key,) in rows:
            self.content(context_id).delete(keys.decode(key))
        if rows:
            with self._transaction():
                self._db.execute(f"DELETE {due}", (context_id, moment))

    def _flush(self, staging: Staging, steps: Sequence[Step]) -> None:
        """Wait until staged files are on the disk."""
        paths = [staging.path(step[2]) for step in steps if step[0] == "put"]
        self._flush_all([*paths, str(staging.directory)])

    def _flush_all(self, paths: Sequence[str]) -> None:
        if not self._durable:
            return
        if len(paths) > _FEW:
            self._sync()
            return
        with ThreadPoolExecutor(_FLUSHES) as threads:  # the disk takes many at a time
            list(threads.map(_flush_one, paths))

    def _sync(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.syncfs(fd):
                raise OSError(ctypes.get_errno(), "syncfs")
        finally:
            os.close(fd)

    def _recover(self) -> None:
        """Carry out what was decided, drop what was not; sessions of an earlier runtime are gone."""
        known = {context.id for context in self._rows("1")}
        with self._transaction():
            self._db.execute("DELETE FROM bindings")
        for (context_id,) in self._select("SELECT DISTINCT context FROM commits"):
            self._carry_out(context_id)
        for (context_id,) in self._select("SELECT id FROM contexts WHERE clearing"):
            self.clear(context_id)
        for (context_id,) in self._select("SELECT id FROM contexts WHERE name IS NULL"):
            self.delete(context_id)
        for place in self._directory.glob("SdkCtx-*"):
            if place.name not in known:  # made or deleted when the runtime was killed
                erase(place)
        for left in (*self._staging.iterdir(), *self._trash.iterdir()):
            erase(left)


def _flush_one(path: str) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # a directory that went with what was in it, or whose path is too long
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
