"""Databases of the runtime: SQLite with a write-ahead log, which survives a kill."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Literal

from agentbay.errors import ConfigurationError


def open_database(
    path: Path, tables: str, version: int, *, synchronous: Literal["OFF", "NORMAL", "FULL"]
) -> sqlite3.Connection:
    """Open a database, or create it.

    Args:
        tables: The statements that create it.
        version: The schema version that this code knows.
        synchronous: What a power failure may cost: FULL nothing, NORMAL the last transactions, OFF the database.
            The end of this process at any moment costs nothing.

    Raises:
        ConfigurationError: It is damaged, has another version, or the disk is full.
    """
    # Threads share the connection: each owner of a database serialises its calls by a lock or the event loop.
    # With isolation_level None, transactions begin only where the code says so.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        # `synchronous` first: the change to a write-ahead log waits for the disk, too.
        for pragma in (f"synchronous = {synchronous}", "journal_mode = WAL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found == 0:
            # One transaction with the version: a kill in between leaves an empty database, which the next start fills.
            connection.executescript(f"BEGIN IMMEDIATE; {tables} PRAGMA user_version = {version}; COMMIT;")
        elif found != version:
            raise _unusable(path, f"it has version {found}, and this runtime knows {version}")
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
        f"The database {path} cannot be used: {why}.",
        hint="Free space on its disk, move its directory away, or choose another --state-dir.",
    )
