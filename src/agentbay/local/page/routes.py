"""The routes of the page: documents for whoever is logged in, what belongs to them, and what their script asks."""

from __future__ import annotations

import html
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs

from agentbay.errors import AuthenticationError, NotFoundError, PermissionDeniedError, ServiceUnavailableError
from agentbay.local.asgi import Receive, Request, Response, as_json, read_body
from agentbay.local.guard import Guard
from agentbay.local.listening import LOGIN, TICKETS
from agentbay.local.page import browse
from agentbay.local.page.board import Board
from agentbay.local.page.entry import TICKET_LIFETIME, Login, Logins, Tickets, opens
from agentbay.local.page.feed import Watch, WatchAll, WatchOne, lines
from agentbay.local.refusals import invalid
from agentbay.local.runtime import Runtime
from agentbay.local.session import Session

_HOME = "/view"
_DOCUMENT = re.compile(r"/view(?:/sessions/([^/]+))?")
_DATA = re.compile(r"/view/data(?:/([^/]+)(?:/(\w+))?)?")
_STATIC = re.compile(r"/view/([a-z]+\.(css|js|svg))")
_FILES = Path(__file__).with_name("static")
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_BODY_LIMIT = 1 << 16
_MOST_WATCHERS = 64
_ANSWERS: dict[str, Callable[[Session, str], Awaitable[Response]]] = {
    "list": browse.list_directory,
    "text": browse.read_text,
    "file": browse.download,
}
_HEADERS = (
    (
        b"content-security-policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
            b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
            b"require-trusted-types-for 'script'; trusted-types 'none'"
        ),
    ),
    # what a program in a session serves through a link has the same origin: it must not get hold of this window
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


class Page:
    """Serves the page."""

    def __init__(self, runtime: Runtime, guard: Guard) -> None:
        self._runtime, self._guard = runtime, guard
        self.tickets, self._logins = Tickets(), Logins()
        self._board = Board(runtime)
        self._watchers = 0
        self._cookie = f"agentbay-{runtime.place.port}"  # to browsers, all ports of a host are one place

    @staticmethod
    def owns(request: Request) -> bool:
        """Whether a request is for the page."""
        return (request.path == "/" and request.method == "GET") or f"{request.path}/".startswith(_HOME + "/")

    async def serve(self, request: Request, receive: Receive) -> Response:
        """Answer a request.

        Raises:
            AgentBayError: What the script asks is refused.
        """
        response = await self._route(request, receive)
        return replace(response, headers=(*response.headers, *_HEADERS))

    async def _route(self, request: Request, receive: Receive) -> Response:
        if request.path == "/":
            return _redirect(_HOME)
        if (asked := _DATA.fullmatch(request.path)) and request.method == "POST":
            return await self._answer(request, asked[1] or "", asked[2] or "", receive)
        if (named := _STATIC.fullmatch(request.path)) and request.method == "GET":
            return _static(named[1], named[2])
        if request.path == "/view/logout" and request.method == "POST":
            return self._log_out(request)
        if request.path == TICKETS and request.method == "POST":
            return self._make_ticket(request)
        if request.path == LOGIN and request.method == "GET":
            return _html("login.html", 200, message="")
        if request.path == LOGIN and request.method == "POST":
            return await self._log_in(request, receive, _HOME)
        if wanted := _DOCUMENT.fullmatch(request.path):
            if request.method == "POST":
                return await self._log_in(request, receive, request.path)
            if request.method == "GET" and "authcode=" in request.query:
                return self._admit(request)
            if request.method == "GET":
                return self._document(request, wanted[1] or "")
        raise NotFoundError("There is no such page.", 404, code="InvalidPath.NotFound")

    def _document(self, request: Request, session_id: str) -> Response:
        # asked for by a script, or to be shown within another document: not by a person
        if request.headers.get("sec-fetch-dest", "document") != "document":
            return _html("login.html", 403, message="This page can only be opened in a window of its own.")
        login = self._logins.with_cookie(self._cookies(request), session_id)
        if login is None:
            return _html("login.html", 401, message="")
        return _html("page.html", 200, page_pass=login.page_pass, scope=login.scope)

    async def _log_in(self, request: Request, receive: Receive, path: str) -> Response:
        """Exchange the key, or a ticket, for a cookie, and lead to `path`."""
        body = (await read_body(receive, _BODY_LIMIT)).decode("utf-8", "replace")
        form = parse_qs(body, keep_blank_values=True)
        if "ticket" in form:
            good = self.tickets.take(form["ticket"][0])
            wrong = "That link is no longer good: it opens the page once, within five minutes of when it was made."
        else:
            good = self._guard.knows("Bearer " + form.get("key", [""])[0].strip())
            wrong = "That is not the key of this runtime."
        if not good:
            return _html("login.html", 403, message=wrong)
        return _redirect(path, self._set(self._logins.open("")))

    def _make_ticket(self, request: Request) -> Response:
        """Give a ticket for the key."""
        if not self._guard.knows(request.headers.get("authorization", "")):
            raise AuthenticationError("That is not the key of this runtime.", 401, code="NOT_LOGIN")
        return as_json({"ticket": self.tickets.make(), "seconds": TICKET_LIFETIME})

    def _admit(self, request: Request) -> Response:
        """Exchange the code of a session for a cookie, and lead away from the URL that holds it."""
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        wanted = query.get("resourceId")
        session = next(iter(self._runtime.sessions.matching(lambda session: session.resource_id == wanted)), None)
        if session is None:
            return _html("login.html", 404, message="That session has ended.")
        if not opens(query.get("authcode", ""), session):
            return _html("login.html", 403, message="That link is no longer good; info() of the session has a new one.")
        # Not a redirection: a browser that comes from another site would not show a strict cookie after it.
        path = f"{_HOME}/sessions/{session.session_id}"
        entered = _html("enter.html", 200, path=path)
        return replace(entered, headers=(self._set(self._logins.open(session.session_id)),))

    def _log_out(self, request: Request) -> Response:
        for cookie in self._cookies(request):
            if login := self._logins.with_cookie([cookie], ""):
                self._logins.close(login)
        return _redirect(_HOME)

    def _set(self, login: Login) -> tuple[bytes, bytes]:
        path = f"{_HOME}/sessions/{login.scope}" if login.scope else _HOME
        name = f"{self._cookie}-one" if login.scope else self._cookie
        secure = "; Secure" if self._runtime.place.secure else ""
        return b"set-cookie", f"{name}={login.cookie}; Path={path}; HttpOnly; SameSite=Strict{secure}".encode()

    def _cookies(self, request: Request) -> list[str]:
        # not http.cookies, which gives up at what other programs on this host may have put there
        given = (part.strip().partition("=") for part in request.headers.get("cookie", "").split(";"))
        return [value for name, _, value in given if name in (self._cookie, f"{self._cookie}-one")]

    async def _answer(self, request: Request, session_id: str, what: str, receive: Receive) -> Response:
        login = self._logins.with_pass(request.headers.get("authorization", "").removeprefix("Bearer "))
        if login is None:
            raise AuthenticationError("You are no longer logged in.", 401, code="NOT_LOGIN")
        if not login.sees(session_id):
            raise PermissionDeniedError("You may see one session, not this.", 403, code="Forbidden")
        path = _path(await read_body(receive, _BODY_LIMIT))
        if not session_id:
            return self._watch(WatchAll(self._board), receive)
        session = self._runtime.sessions.find(session_id)
        if not what:
            return self._watch(WatchOne(session), receive)
        if what in _ANSWERS:
            return await _ANSWERS[what](session, path)
        return await self._change(login, session, what)

    async def _change(self, login: Login, session: Session, what: str) -> Response:
        changes = {
            "pause": self._runtime.sessions.pause,
            "resume": self._runtime.sessions.resume,
            "delete": self._runtime.sessions.delete,
        }
        if what not in changes:
            raise NotFoundError(f"There is no {what!r:.80} here.", 404, code="InvalidPath.NotFound")
        if login.scope:
            raise PermissionDeniedError("Who came by a link may look, not change anything.", 403, code="Forbidden")
        await changes[what](session)
        return as_json({})

    def _watch(self, watch: Watch, receive: Receive) -> Response:
        if self._watchers >= _MOST_WATCHERS:
            raise ServiceUnavailableError(f"{_MOST_WATCHERS} pages are open already.", 503, code="TooMany")
        return Response(200, b"", "application/x-ndjson", stream=self._counted(watch, receive))

    async def _counted(self, watch: Watch, receive: Receive) -> AsyncGenerator[bytes, None]:
        self._watchers += 1
        try:
            async for line in lines(watch, self._runtime, receive):
                yield line
        finally:
            self._watchers -= 1


def _path(body: bytes) -> str:
    try:
        asked = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise invalid("The question cannot be read.") from error
    path = asked.get("path", "") if isinstance(asked, dict) else None
    if not isinstance(path, str):
        raise invalid("path: must be a text.")
    return path


def _redirect(path: str, *headers: tuple[bytes, bytes]) -> Response:
    return Response(303, b"", "text/plain", headers=((b"location", path.encode()), *headers))


def _static(name: str, kind: str) -> Response:
    file = _FILES / name
    if not file.is_file():
        raise NotFoundError("There is no such file.", 404, code="InvalidPath.NotFound")
    return Response(200, file.read_bytes(), f"{_TYPES[kind]}; charset=utf-8")


def _html(name: str, status: int, **values: str) -> Response:
    """Fill in a document: each `{{name}}` is replaced by the value, as text."""
    text = (_FILES / name).read_text("utf-8")
    for place, value in values.items():
        text = text.replace("{{" + place + "}}", html.escape(value))
    return Response(status, text.encode(), "text/html; charset=utf-8")
