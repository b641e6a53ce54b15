"""The database of contexts."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentbay.local import database

SCHEMA_VERSION = 1
_TABLES = """
CREATE TABLE contexts (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT UNIQUE,                   -- NULL: a session's own, never listed
    created REAL NOT NULL,              -- seconds since 1970, as all times
    used REAL NOT NULL,
    clearing INTEGER NOT NULL DEFAULT 0,
    cleared INTEGER NOT NULL DEFAULT 0, -- and neither bound nor written to since
    epoch INTEGER NOT NULL DEFAULT 0    -- how often it has been cleared
);
CREATE TABLE objects (                  -- on this disk: objects of which there is more to say than the tree does
    context TEXT NOT NULL REFERENCES contexts (id) ON DELETE CASCADE,
    key BLOB NOT NULL,
    expires REAL,
    archive INTEGER NOT NULL DEFAULT 0, -- made by upload mode Archive: a session's files, not a file of the session
    PRIMARY KEY (context, key)
) WITHOUT ROWID;
CREATE INDEX expiring ON objects (expires) WHERE expires IS NOT NULL;
CREATE TABLE mounts (                   -- which directory a context shows where it is mounted
    context TEXT NOT NULL REFERENCES contexts (id) ON DELETE CASCADE,
    path BLOB NOT NULL,
    key BLOB NOT NULL,
    PRIMARY KEY (context, path)
) WITHOUT ROWID;
CREATE TABLE bindings (                 -- of sessions that live
    session TEXT NOT NULL,
    context TEXT NOT NULL,
    path BLOB NOT NULL,
    bound REAL NOT NULL,
    shown BLOB,                         -- the key of the directory that is mounted there; NULL: it is a copy
    PRIMARY KEY (session, path)
) WITHOUT ROWID;
CREATE TABLE commits (                  -- on this disk: decided but perhaps not carried out; see `disk.py`
    number INTEGER PRIMARY KEY,
    context TEXT NOT NULL REFERENCES contexts (id) ON DELETE CASCADE,
    staging TEXT NOT NULL,
    steps TEXT NOT NULL                 -- JSON
);
"""


class ContextDatabase:
    """The database, for threads: one connection, and one that writes at a time."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        """Open it, made at first.

        Raises:
            ConfigurationError: It is damaged, or of a version that this one does not know.
        """
        self._connection = database.open_database(
            path, _TABLES, SCHEMA_VERSION, synchronous="FULL" if durable else "NORMAL"
        )
        self._lock = threading.RLock()

    def close(self) -> None:
        """Close."""
        with self._lock:
            self._connection.close()

    def select(self, query: str, *values: object) -> list[Any]:
        """Return the rows that a query finds."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def execute(self, statement: str, *values: object) -> None:
        """Change rows."""
        with self._lock:
            self._connection.execute(statement, values)

    def execute_many(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        """Change rows, once for each of `rows`."""
        with self._lock:
            self._connection.executemany(statement, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make what is done meanwhile one step; within another, a part of that."""
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
