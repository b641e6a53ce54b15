"""Terminals of a session."""

from __future__ import annotations

from .._lazy_attrs import define


@define(slots=False)
class PtySession:
    """A terminal of a session, as it was at the time of the call.

    Attributes:
        pty_session_id: Its id, for `pty.connect()`.
        cols, rows: Its size in characters; 0 if unknown.
        status: "running" or "exited".
        exit_code: Exit code of its program; 128 + N if signal N ended it; None while it runs.
    """

    pty_session_id: str
    cols: int
    rows: int
    status: str
    exit_code: int | None = None
