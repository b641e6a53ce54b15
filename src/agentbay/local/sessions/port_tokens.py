"""Links to ports inside sessions: who holds one may use that port, nothing else, for a day at least, two at most.

And for no longer than the session lives. All of a day end together, so that who asks again gets the same link.
"""

from __future__ import annotations

import time

from agentbay.local.ids import is_same_secret, sign
from agentbay.local.sessions.session import Session
from agentbay.local.sessions.table import SessionTable

FIRST_PORT, LAST_PORT = 30100, 30199
_DAY_SECONDS = 24 * 3600


def make_port_token(session: Session, port: int) -> str:
    """Make the token of a port; it says where it leads, until when, and proves that this runtime has made it."""
    expires = (int(time.time()) // _DAY_SECONDS + 2) * _DAY_SECONDS
    return f"{session.session_id}.{port}.{expires}.{_sign(session, port, expires)}"


def resolve_port_token(sessions: SessionTable, token: str) -> tuple[Session, int]:
    """Return where a token leads.

    Raises:
        SessionNotFoundError: The session has ended.
        ValueError: The token is not one of ours, or its time is over.
    """
    session_id, port, expires, seal = token.split(".")
    session = sessions.find(session_id)
    if not is_same_secret(seal, _sign(session, int(port), int(expires)).encode()):
        raise ValueError("forged")
    if time.time() >= int(expires):
        raise ValueError("expired")
    return session, int(port)


def _sign(session: Session, port: int, expires: int) -> str:
    return sign(session.link_secret, f"{port} {expires}".encode()).hex()
