"""Logins to the dashboard, by the key, a ticket or a view code.

Key and ticket open all sessions, a view code opens one. A login has a cookie, which gets the document, and a CSRF
token, which stands in the document and goes with each request for data. So the cookie alone gets no data: browsers send
it with every request to this host, also with those of other pages on it.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from agentbay.local.ids import is_same_secret
from agentbay.local.sessions.view_codes import LOGIN_LIFETIME_SECONDS

TICKET_LIFETIME_SECONDS = 300
_MAX_LOGINS = 1000  # a further one ends the oldest
_MAX_TICKETS = 16  # a further one replaces the oldest


@dataclass(frozen=True, slots=True)
class Login:
    """A browser that is logged in.

    Attributes:
        session_id: The one session that it may view; "" is every session.
        expires_at: Monotonic time.
    """

    cookie: str
    csrf_token: str
    session_id: str
    expires_at: float

    def can_view(self, session_id: str) -> bool:
        """Return whether it may view a session, or, for "", the list of all."""
        return self.session_id in ("", session_id)


class LoginTickets:
    """One-time login tickets.

    A ticket works once and for `TICKET_LIFETIME_SECONDS`, so it may stand in a URL, which browsers remember.
    """

    def __init__(self) -> None:
        self._tickets: deque[tuple[bytes, float]] = deque(maxlen=_MAX_TICKETS)  # with the monotonic time they expire at

    def make(self) -> str:
        """Make a ticket."""
        ticket = secrets.token_urlsafe(32)
        self._tickets.append((ticket.encode(), time.monotonic() + TICKET_LIFETIME_SECONDS))
        return ticket

    def redeem(self, ticket: str) -> bool:
        """Return whether the ticket is valid, and make it invalid."""
        matching = [known for known in self._tickets if is_same_secret(ticket, known[0])]
        for known in matching:
            self._tickets.remove(known)
        return any(time.monotonic() < expires_at for _, expires_at in matching)


class LoginStore:
    """The logins that have not expired."""

    def __init__(self) -> None:
        self._logins: dict[str, Login] = {}  # by cookie and by CSRF token, the oldest first

    def log_in(self, session_id: str) -> Login:
        """Make a login to one session, or, for "", to all."""
        expires_at = time.monotonic() + LOGIN_LIFETIME_SECONDS
        login = Login(secrets.token_urlsafe(32), secrets.token_urlsafe(32), session_id, expires_at)
        self._logins |= {login.cookie: login, login.csrf_token: login}
        while len(self._logins) > 2 * _MAX_LOGINS:
            self.log_out(next(iter(self._logins.values())))
        return login

    def log_out(self, login: Login) -> None:
        """End a login."""
        self._logins.pop(login.cookie, None)
        self._logins.pop(login.csrf_token, None)

    def find_by_cookie(self, cookies: Iterable[str], session_id: str) -> Login | None:
        """Return a login by one of these cookies that may view the session."""
        # One table holds both secrets, and a CSRF token, which scripts can read, must not pass as a cookie.
        logins = (self._find(cookie) for cookie in cookies)
        return next(
            (login for login in logins if login and login.cookie in cookies and login.can_view(session_id)), None
        )

    def find_by_csrf_token(self, csrf_token: str) -> Login | None:
        """Return the login whose document carries this CSRF token."""
        login = self._find(csrf_token)
        return login if login and login.csrf_token == csrf_token else None

    def _find(self, secret: str) -> Login | None:
        login = self._logins.get(secret)
        if login and time.monotonic() >= login.expires_at:
            self.log_out(login)
            return None
        return login
