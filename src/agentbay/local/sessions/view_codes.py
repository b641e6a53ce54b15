"""Codes that open the dashboard of one session, as they stand in its URL."""

from __future__ import annotations

import time

from agentbay.local.ids import is_same_secret, sign
from agentbay.local.sessions.session import Session

LOGIN_LIFETIME_SECONDS = 12 * 3600  # of a code, and of the login it is exchanged for
_MAX_EXPIRY_DIGITS = 19  # digits that an expiry may have; int() takes longer the more there are


def make_view_code(session: Session) -> str:
    """Make the code that opens the dashboard of a session, valid for `LOGIN_LIFETIME_SECONDS`."""
    expires = int(time.time()) + LOGIN_LIFETIME_SECONDS
    return f"{expires}-{_sign(session, expires)}"


def is_valid_view_code(code: str, session: Session) -> bool:
    """Return whether this is a code of that session that has not expired."""
    expires, _, signature = code.partition("-")
    if not (expires.isascii() and expires.isdigit() and len(expires) <= _MAX_EXPIRY_DIGITS):
        return False
    return is_same_secret(signature, _sign(session, int(expires)).encode()) and time.time() < int(expires)


def _sign(session: Session, expires: int) -> str:
    return sign(session.link_secret, b"page until %d" % expires).hex()[:32]
