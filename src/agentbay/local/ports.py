"""Links to ports inside sessions: who holds one may use that port, nothing else, for as long as the session lives."""

from __future__ import annotations

import hashlib
import hmac

from agentbay.local.session import Session
from agentbay.local.sessions import SessionTable

FIRST, LAST = 30100, 30199


def make_token(session: Session, port: int) -> str:
    """Make the token of a port; it says where it leads and proves that this runtime has made it."""
    return f"{session.session_id}.{port}.{_seal(session, port)}"


def resolve(sessions: SessionTable, token: str) -> tuple[Session, int]:
    """Return where a token leads.

    Raises:
        SessionNotFoundError: The session has ended.
        ValueError: The token is not one of ours.
    """
    session_id, port, seal = token.split(".")
    session = sessions.find(session_id)
    if not hmac.compare_digest(seal.encode(), _seal(session, int(port)).encode()):
        raise ValueError("forged")
    return session, int(port)


def _seal(session: Session, port: int) -> str:
    return hmac.new(session.link_secret, str(port).encode(), hashlib.sha256).hexdigest()
