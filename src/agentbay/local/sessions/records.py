"""The database of sessions.

It tells a later runtime which sessions have ended, including those that ended when their runtime did.

A row is written before the client gets its answer, which takes about 30 microseconds. Only the end of a session is ever
read from its row: after a kill, or on a full disk, the rest may be out of date.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from agentbay._wire.sessions import SessionDetail
from agentbay.local import database
from agentbay.local.api_errors import storage_full
from agentbay.local.sessions.lifecycle import SessionState
from agentbay.local.sessions.session import Session

_logger = logging.getLogger(__name__)

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,   -- the order of creation
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    labels TEXT NOT NULL,                       -- JSON
    image TEXT NOT NULL,
    app_instance TEXT NOT NULL,
    policy TEXT NOT NULL,
    region TEXT NOT NULL,
    created REAL NOT NULL,                      -- seconds since 1970, as all times
    ended REAL,
    reason TEXT NOT NULL DEFAULT ''             -- why it ended
);
CREATE INDEX ending ON sessions (ended) WHERE ended IS NOT NULL;
"""
RETENTION_SECONDS, RETENTION_ROWS = 24 * 3600.0, 10_000  # of ended sessions


class SessionRecords:
    """The rows of all sessions.

    Every method blocks, but only for microseconds.
    """

    def __init__(self, path: Path, *, durable: bool) -> None:
        """Open the database, and end the sessions of an earlier runtime.

        Args:
            durable: Whether the database survives a power failure.

        Raises:
            ConfigurationError: The database is damaged.
        """
        self._db = database.open_database(path, _SCHEMA, _SCHEMA_VERSION, synchronous="NORMAL" if durable else "OFF")
        self._write(
            "UPDATE sessions SET reason = 'The runtime ended while the session was ' || state || '.', "
            "state = ?, ended = ? WHERE ended IS NULL",
            SessionState.FINISH.value,
            time.time(),
        )

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def add(self, session: Session) -> int:
        """Add a new session, and return its creation number.

        Raises:
            ServerError: The disk is full.
        """
        fields = "id, state, labels, image, app_instance, policy, region, created"
        values = (
            session.session_id,
            session.lifecycle.state.value,
            json.dumps(session.labels),
            session.image_id,
            session.app_instance_id,
            session.policy_id,
            session.region_id,
            time.time(),
        )
        number = self._write(f"INSERT INTO sessions ({fields}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *values)  # noqa: S608
        assert number is not None
        return number

    def set_labels(self, session_id: str, labels: Mapping[str, str]) -> None:
        """Replace the labels of a session.

        Raises:
            ServerError: The disk is full.
        """
        self._write("UPDATE sessions SET labels = ? WHERE id = ?", json.dumps(dict(labels)), session_id)

    def save_state(self, session: Session) -> None:
        """Save the state of a session.

        A full disk is only logged: it must not keep a session from ending.
        """
        now = time.time()
        ended = now if session.lifecycle.state is SessionState.FINISH else None
        row = (session.lifecycle.state.value, ended, session.end_reason, session.session_id)
        try:
            self._db.execute("UPDATE sessions SET state = ?, ended = ?, reason = ? WHERE id = ?", row)
            if ended:
                self._db.execute(
                    "DELETE FROM sessions WHERE ended IS NOT NULL AND (ended < ? OR number <= ?)",
                    (now - RETENTION_SECONDS, session.creation_number - RETENTION_ROWS),
                )
        except sqlite3.OperationalError as error:
            _logger.warning("the state of %s could not be saved: %s", session.session_id, error)

    def find_ended(self, session_id: str) -> SessionDetail | None:
        """Describe a session that has ended, or return None if it is unknown."""
        fields = "image, app_instance, policy, region, reason, ended"
        row = self._db.execute(f"SELECT {fields} FROM sessions WHERE id = ?", (session_id,)).fetchone()  # noqa: S608
        if row is None:
            return None
        image, app_instance, policy, region, reason, ended = row
        return SessionDetail(
            status=SessionState.FINISH.value,
            image_id=image,
            app_instance_id=app_instance,
            policy_id=policy,
            region_id=region,
            end_reason=reason,
            end_time=datetime.fromtimestamp(ended, UTC).isoformat(timespec="seconds") if ended else None,
        )

    def _write(self, statement: str, *values: object) -> int | None:
        try:
            return self._db.execute(statement, values).lastrowid
        except sqlite3.OperationalError as error:
            raise storage_full(error) from error
