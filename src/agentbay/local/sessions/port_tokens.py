"""Tokens of links to session ports, in the two forms that URLs carry.

A token opens one port of one session, for at least one day and at most two, and not after the session's end. All tokens
made on one day expire together, so that a repeated request returns the same link.
"""

from __future__ import annotations

import base64
import re
import time

from agentbay.local.ids import is_same_secret, sign
from agentbay.local.sessions.session import Session
from agentbay.local.sessions.table import SessionTable

_DAY_SECONDS = 24 * 3600
_SESSION_PREFIX = "session-"
# Session, port, day and signature: at most 63 characters, as many as a DNS label may have, and no upper case.
_HOST_LABEL = re.compile(r"([0-9a-z]{21})-([1-9]\d{0,4})-(\d{5})-([a-z2-7]{26})")
_LABEL_SIGNATURE_CHARACTERS = 26  # of 5 bits each


def make_port_token(session: Session, port: int) -> str:
    """Make the token of a port for a link whose path carries it."""
    expires = _expiry_day() * _DAY_SECONDS
    return f"{session.session_id}.{port}.{expires}.{_sign(session, port, expires)}"


def resolve_port_token(sessions: SessionTable, token: str) -> tuple[Session, int]:
    """Return the session and the port that a token opens.

    Raises:
        SessionNotFoundError: The session has ended.
        ValueError: The token is forged or has expired.
    """
    session_id, port, expires, signature = token.split(".")
    session = sessions.find(session_id)
    if not is_same_secret(signature, _sign(session, int(port), int(expires)).encode()):
        raise ValueError("forged")
    if time.time() >= int(expires):
        raise ValueError("expired")
    return session, int(port)


def make_host_label(session: Session, port: int) -> str:
    """Make a port's token for a link's host name, as one DNS label."""
    day = _expiry_day()
    signature = _sign_label(session, port, day)
    return f"{session.session_id.removeprefix(_SESSION_PREFIX)}-{port}-{day}-{signature}"


def is_host_label(label: str) -> bool:
    """Return whether a DNS label has the form of a token, valid or not."""
    return _HOST_LABEL.fullmatch(label) is not None


def resolve_host_label(sessions: SessionTable, label: str) -> tuple[Session, int]:
    """Return the session and the port that a label opens.

    Raises:
        SessionNotFoundError: The session has ended.
        ValueError: The label is forged or has expired.
    """
    match = _HOST_LABEL.fullmatch(label)
    if match is None:
        raise ValueError("malformed")
    session, port, day = sessions.find(_SESSION_PREFIX + match[1]), int(match[2]), int(match[3])
    if not is_same_secret(match[4], _sign_label(session, port, day).encode()):
        raise ValueError("forged")
    if time.time() >= day * _DAY_SECONDS:
        raise ValueError("expired")
    return session, port


def _expiry_day() -> int:
    return int(time.time()) // _DAY_SECONDS + 2


def _sign(session: Session, port: int, expires: int) -> str:
    return sign(session.link_secret, f"{port} {expires}".encode()).hex()


def _sign_label(session: Session, port: int, day: int) -> str:
    # "host" keeps the two forms apart: the signature of a label must not be that of a path's token.
    signature = base64.b32encode(sign(session.link_secret, f"host {port} {day}".encode()))
    return signature[:_LABEL_SIGNATURE_CHARACTERS].decode().lower()
