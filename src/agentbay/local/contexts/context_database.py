"""The SQLite database of contexts."""

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
    name TEXT UNIQUE,                   -- NULL: internal to a session, never listed
    created REAL NOT NULL,              -- seconds since 1970, as all times
    used REAL NOT NULL,
    clearing INTEGER NOT NULL DEFAULT 0,
    cleared INTEGER NOT NULL DEFAULT 0, -- 1: neither bound nor written to since the last clear
    epoch INTEGER NOT NULL DEFAULT 0    -- number of clears
);
CREATE TABLE objects (                  -- disk backend: attributes of files that the tree has no place for
    context TEXT NOT NULL REFERENCES contexts (id) ON DELETE CASCADE,
    key BLOB NOT NULL,
    expires REAL,
    archive INTEGER NOT NULL DEFAULT 0, -- 1: made by upload mode Archive, and no file of the session itself
    PRIMARY KEY (context, key)
) WITHOUT ROWID;
CREATE INDEX expiring ON objects (expires) WHERE expires IS NOT NULL;
CREATE TABLE mounts (                   -- the directory of the context that a mount at a path shows
    context TEXT NOT NULL REFERENCES contexts (id) ON DELETE CASCADE,
    path BLOB NOT NULL,
    key BLOB NOT NULL,
    PRIMARY KEY (context, path)
) WITHOUT ROWID;
CREATE TABLE bindings (                 -- contexts of live sessions
    session TEXT NOT NULL,
    context TEXT NOT NULL,
    path BLOB NOT NULL,
    bound REAL NOT NULL,
    shown BLOB,                         -- key of the mounted directory; NULL: the session has a copy
    PRIMARY KEY (session, path)
) WITHOUT ROWID;
CREATE TABLE commits (                  -- disk backend: the write-ahead log, see `disk_backend.py`
    number INTEGER PRIMARY KEY,
    context TEXT NOT NULL REFERENCES contexts (id) ON DELETE CASCADE,
    staging TEXT NOT NULL,
    steps TEXT NOT NULL                 -- JSON
);
"""


class ContextDatabase:
    """The database, safe for threads: one connection under one lock."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        """Open the database, and create it if it is missing.

        Raises:
            ConfigurationError: It is damaged, or its version is unknown.
        """
        self._connection = database.open_database(
            path, _TABLES, SCHEMA_VERSION, synchronous="FULL" if durable else "OFF"
        )
        self._lock = threading.RLock()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def select(self, query: str, *values: object) -> list[Any]:
        """Return the rows of a query."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def execute(self, statement: str, *values: object) -> None:
        with self._lock:
            self._connection.execute(statement, values)

    def execute_many(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        with self._lock:
            self._connection.executemany(statement, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the body as one transaction. A nested one joins the outer one."""
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
