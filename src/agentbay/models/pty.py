"""Terminals: what is known of one."""

from __future__ import annotations

from attrs import define


@define(slots=False)
class PtySession:
    """A terminal of a session, as it was when it was asked for.

    Attributes:
        pty_session_id: Its id; `pty.connect()` takes it.
        cols, rows: Its size in characters; 0 if the service does not tell.
        status: "running" or "exited".
        exit_code: Of its program, 128 + N if signal N ended it; None while it runs.
    """

    pty_session_id: str
    cols: int
    rows: int
    status: str
    exit_code: int | None = None
