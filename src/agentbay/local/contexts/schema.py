"""The database of contexts: its tables, and how it is opened."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from agentbay.errors import ConfigurationError

VERSION = 1
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
CREATE TABLE objects (                  -- only of objects of which there is more to say than the tree does
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
CREATE TABLE commits (                  -- decided but perhaps not carried out; see `Store.commit`
    number INTEGER PRIMARY KEY,
    context TEXT NOT NULL REFERENCES contexts (id) ON DELETE CASCADE,
    staging TEXT NOT NULL,
    steps TEXT NOT NULL                 -- JSON
);
"""


def connect(path: Path, *, durable: bool) -> sqlite3.Connection:
    """Open the database, made at first.

    Raises:
        ConfigurationError: It is damaged, or of a version that this one does not know.
    """
    # isolation_level None: transactions begin where the code says so
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        # FULL: what is acknowledged survives a power failure; NORMAL: the end of this process, at any moment
        for pragma in ("journal_mode = WAL", f"synchronous = {'FULL' if durable else 'NORMAL'}", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
        elif version != VERSION:
            raise _unusable(path, f"it has version {version}, and this runtime knows {VERSION}")
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise _unusable(path, verdict)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _unusable(path, str(error)) from error
    except ConfigurationError:
        connection.close()
        raise
    return connection


def _unusable(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The contexts in {path} cannot be used: {why}.", hint="Move the directory away, or choose another --state-dir."
    )
