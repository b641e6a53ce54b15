"""Who may see the page: whoever has the key sees every session, whoever has a session's code, from its URL, that one.

Code and key, or a ticket that stands for the key once, are exchanged for a cookie, and the cookie gets the document,
which carries a pass; its script shows the pass with all it asks. So the cookie alone gets no data: what a program
inside a session serves through a link has the same origin as this page, and could otherwise ask in the name of whoever
looks at it.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from agentbay.local.ids import is_same_secret
from agentbay.local.sessions.view_codes import LOGIN_LIFETIME_SECONDS

TICKET_LIFETIME_SECONDS = 300  # seconds
_MAX_LOGINS = 1000  # logins
_MAX_TICKETS = 16  # a further one takes the place of the oldest


@dataclass(frozen=True, slots=True)
class Login:
    """Somebody who may see the page.

    Attributes:
        scope: The id of the one session that they may see; "" is every session.
    """

    cookie: str
    csrf_token: str
    session_id: str
    expires_at: float

    def can_view(self, session_id: str) -> bool:
        """Whether they may see a session; "" is the list of all."""
        return self.session_id in ("", session_id)


class LoginTickets:
    """What logs a browser in once, soon after it was made; so it may stand in a URL, which browsers remember."""

    def __init__(self) -> None:
        self._tickets: deque[tuple[bytes, float]] = deque(maxlen=_MAX_TICKETS)

    def make(self) -> str:
        """Make one."""
        ticket = secrets.token_urlsafe(32)
        self._tickets.append((ticket.encode(), time.monotonic() + TICKET_LIFETIME_SECONDS))
        return ticket

    def redeem(self, given: str) -> bool:
        """Whether this is a ticket and still good; it is not any more."""
        found = [ticket for ticket in self._tickets if is_same_secret(given, ticket[0])]
        for ticket in found:
            self._tickets.remove(ticket)
        return any(time.monotonic() < expires for _, expires in found)


class LoginStore:
    """Who is logged in."""

    def __init__(self) -> None:
        self._logins: dict[str, Login] = {}  # by cookie and by pass, the oldest first

    def log_in(self, scope: str) -> Login:
        """Log somebody in."""
        login = Login(
            secrets.token_urlsafe(32), secrets.token_urlsafe(32), scope, time.monotonic() + LOGIN_LIFETIME_SECONDS
        )
        self._logins |= {login.cookie: login, login.csrf_token: login}
        while len(self._logins) > 2 * _MAX_LOGINS:
            self.log_out(next(iter(self._logins.values())))
        return login

    def log_out(self, login: Login) -> None:
        """Log somebody out."""
        self._logins.pop(login.cookie, None)
        self._logins.pop(login.csrf_token, None)

    def find_by_cookie(self, cookies: Iterable[str], session_id: str) -> Login | None:
        """Return the login by one of these cookies that may see a session."""
        found = (self._find(cookie) for cookie in cookies)
        return next(
            (login for login in found if login and login.cookie in cookies and login.can_view(session_id)), None
        )

    def find_by_csrf_token(self, page_pass: str) -> Login | None:
        """Return the login whose document carries this pass."""
        login = self._find(page_pass)
        return login if login and login.csrf_token == page_pass else None

    def _find(self, secret: str) -> Login | None:
        login = self._logins.get(secret)
        if login and time.monotonic() >= login.expires_at:
            self.log_out(login)
            return None
        return login
