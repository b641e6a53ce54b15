"""The routes of the dashboard: login, documents, static files and data."""

from __future__ import annotations

import html
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qs

from attrs import evolve

from agentbay.errors import AuthenticationError, NotFoundError, PermissionDeniedError, ServiceUnavailableError
from agentbay.local.api_errors import invalid_request
from agentbay.local.dashboard import file_browser
from agentbay.local.dashboard.event_stream import AllSessionsSource, EventSource, SingleSessionSource, stream_events
from agentbay.local.dashboard.login import TICKET_LIFETIME_SECONDS, Login, LoginStore, LoginTickets
from agentbay.local.dashboard.overview import SessionOverview
from agentbay.local.dashboard.paths import LOGIN_PATH, TICKETS_PATH
from agentbay.local.http.asgi import Receive, Request, Response, json_response, read_body
from agentbay.local.http.origin_check import OriginCheck
from agentbay.local.runtime import Runtime
from agentbay.local.sessions.session import Session
from agentbay.local.sessions.view_codes import is_valid_view_code

_BASE_PATH = "/view"
_DOCUMENT_PATH = re.compile(r"/view(?:/sessions/([^/]+))?")
_DATA_PATH = re.compile(r"/view/data(?:/([^/]+)(?:/(\w+))?)?")
_STATIC_PATH = re.compile(r"/view/([a-z]+\.(css|js|svg))")
_STATIC_DIRECTORY = Path(__file__).with_name("static")
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_MAX_BODY_BYTES = 1 << 16
_MAX_STREAMS = 64
_FILE_OPERATIONS: dict[str, Callable[[Session, str], Awaitable[Response]]] = {
    "list": file_browser.list_directory,
    "text": file_browser.read_text_preview,
    "file": file_browser.download,
}
_SECURITY_HEADERS = (
    (
        b"content-security-policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
            b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
            b"require-trusted-types-for 'script'; trusted-types 'none'"
        ),
    ),
    # A page from elsewhere that opens the dashboard must not get hold of its window.
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


class Dashboard:
    """Answers all requests for the dashboard."""

    def __init__(self, runtime: Runtime, origin_check: OriginCheck) -> None:
        self._runtime, self._origin_check = runtime, origin_check
        self._tickets, self._logins = LoginTickets(), LoginStore()
        self._overview = SessionOverview(runtime)
        self._open_streams = 0
        # Browsers send a host's cookies to all its ports: the name keeps several runtimes apart.
        self._cookie = f"agentbay-{runtime.address.port}"

    def make_login_url(self) -> str:
        """Return a URL that logs a browser in once, within `TICKET_LIFETIME_SECONDS`."""
        return f"{self._runtime.address.http_url}{LOGIN_PATH}#{self._tickets.make()}"

    async def serve(self, request: Request, receive: Receive) -> Response:
        """Answer a request.

        Raises:
            AgentBayError: The request is refused.
        """
        response = await self._route(request, receive)
        return evolve(response, headers=(*response.headers, *_SECURITY_HEADERS))

    async def _route(self, request: Request, receive: Receive) -> Response:
        if request.path == "/":
            return _redirect(_BASE_PATH)
        if (match := _DATA_PATH.fullmatch(request.path)) and request.method == "POST":
            return await self._answer_data_request(request, match[1] or "", match[2] or "", receive)
        if (match := _STATIC_PATH.fullmatch(request.path)) and request.method == "GET":
            return _static(match[1], match[2])
        if request.path == "/view/logout" and request.method == "POST":
            return self._log_out(request)
        if request.path == TICKETS_PATH and request.method == "POST":
            return self._make_ticket(request)
        if request.path == LOGIN_PATH and request.method == "GET":
            return _render_template("login.html", 200, message="")
        if request.path == LOGIN_PATH and request.method == "POST":
            return await self._log_in(request, receive, _BASE_PATH)
        if match := _DOCUMENT_PATH.fullmatch(request.path):
            if request.method == "POST":
                return await self._log_in(request, receive, request.path)
            if request.method == "GET" and "authcode=" in request.query:
                return self._log_in_with_code(request)
            if request.method == "GET":
                return self._document(request, match[1] or "")
        raise NotFoundError("There is no such page.", 404, code="InvalidPath.NotFound")

    def _document(self, request: Request, session_id: str) -> Response:
        # Any other destination is a script or a frame, not a person who opens the dashboard. All browsers since 2023
        # name it.
        if request.headers.get("sec-fetch-dest") != "document":
            return _render_template("login.html", 403, message="This page can only be opened in a window of its own.")
        login = self._logins.find_by_cookie(self._cookies(request), session_id)
        if login is None:
            return _render_template("login.html", 401, message="")
        return _render_template("page.html", 200, csrf_token=login.csrf_token, session_id=login.session_id)

    async def _log_in(self, request: Request, receive: Receive, path: str) -> Response:
        """Exchange the key, or a ticket, for a cookie, and redirect to `path`."""
        body = (await read_body(receive, _MAX_BODY_BYTES)).decode("utf-8", "replace")
        form = parse_qs(body, keep_blank_values=True)
        if "ticket" in form:
            is_valid = self._tickets.redeem(form["ticket"][0])
            message = "That link is no longer good: it opens the page once, within five minutes of when it was made."
        else:
            is_valid = self._origin_check.has_valid_key("Bearer " + form.get("key", [""])[0].strip())
            message = "That is not the key of this runtime."
        if not is_valid:
            return _render_template("login.html", 403, message=message)
        return _redirect(path, self._cookie_header(self._logins.log_in("")))

    def _make_ticket(self, request: Request) -> Response:
        if not self._origin_check.has_valid_key(request.headers.get("authorization", "")):
            raise AuthenticationError("That is not the key of this runtime.", 401, code="NOT_LOGIN")
        return json_response({"ticket": self._tickets.make(), "seconds": TICKET_LIFETIME_SECONDS})

    def _log_in_with_code(self, request: Request) -> Response:
        """Exchange a view code for a cookie and lead to a clean URL."""
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        resource_id = query.get("resourceId")
        session = next(iter(self._runtime.sessions.matching(lambda session: session.resource_id == resource_id)), None)
        if session is None:
            return _render_template("login.html", 404, message="That session has ended.")
        if not is_valid_view_code(query.get("authcode", ""), session):
            return _render_template(
                "login.html", 403, message="That link is no longer good; info() of the session has a new one."
            )
        # Not a redirect: after one that began at another site, browsers do not send SameSite=Strict cookies.
        path = f"{_BASE_PATH}/sessions/{session.session_id}"
        document = _render_template("enter.html", 200, path=path)
        return evolve(document, headers=(self._cookie_header(self._logins.log_in(session.session_id)),))

    def _log_out(self, request: Request) -> Response:
        for cookie in self._cookies(request):
            if login := self._logins.find_by_cookie([cookie], ""):
                self._logins.log_out(login)
        return _redirect(_BASE_PATH)

    def _cookie_header(self, login: Login) -> tuple[bytes, bytes]:
        # A cookie of its own, so that a link to one session does not replace the login to all of them.
        path = f"{_BASE_PATH}/sessions/{login.session_id}" if login.session_id else _BASE_PATH
        name = f"{self._cookie}-one" if login.session_id else self._cookie
        secure = "; Secure" if self._runtime.address.uses_tls else ""
        return b"set-cookie", f"{name}={login.cookie}; Path={path}; HttpOnly; SameSite=Strict{secure}".encode()

    def _cookies(self, request: Request) -> list[str]:
        # Not http.cookies, which drops all cookies after one that it cannot parse: other programs set some here, too.
        pairs = (part.strip().partition("=") for part in request.headers.get("cookie", "").split(";"))
        return [value for name, _, value in pairs if name in (self._cookie, f"{self._cookie}-one")]

    async def _answer_data_request(self, request: Request, session_id: str, verb: str, receive: Receive) -> Response:
        login = self._logins.find_by_csrf_token(request.headers.get("authorization", "").removeprefix("Bearer "))
        if login is None:
            raise AuthenticationError("You are no longer logged in.", 401, code="NOT_LOGIN")
        if not login.can_view(session_id):
            raise PermissionDeniedError("You may see one session, not this.", 403, code="Forbidden")
        request.mark_authenticated()
        path = _parse_path(bytes(await read_body(receive, _MAX_BODY_BYTES)))
        if not session_id:
            return self._stream_response(AllSessionsSource(self._overview), receive)
        session = self._runtime.sessions.find(session_id)
        if not verb:
            return self._stream_response(SingleSessionSource(session), receive)
        if verb in _FILE_OPERATIONS:
            return await _FILE_OPERATIONS[verb](session, path)
        return await self._change_state(login, session, verb)

    async def _change_state(self, login: Login, session: Session, verb: str) -> Response:
        changes = {
            "pause": self._runtime.sessions.pause,
            "resume": self._runtime.sessions.resume,
            "delete": self._runtime.sessions.delete,
        }
        if verb not in changes:
            raise NotFoundError(f"There is no {verb!r:.80} here.", 404, code="InvalidPath.NotFound")
        if login.session_id:
            raise PermissionDeniedError("Who came by a link may look, not change anything.", 403, code="Forbidden")
        await changes[verb](session)
        return json_response({})

    def _stream_response(self, source: EventSource, receive: Receive) -> Response:
        if self._open_streams >= _MAX_STREAMS:
            raise ServiceUnavailableError(f"{_MAX_STREAMS} pages are open already.", 503, code="TooMany")
        return Response(200, b"", "application/x-ndjson", stream=self._counted_stream(source, receive))

    async def _counted_stream(self, source: EventSource, receive: Receive) -> AsyncGenerator[bytes, None]:
        # Counted when the stream begins: one that is never read from never reaches the `finally` either.
        self._open_streams += 1
        try:
            async for line in stream_events(source, self._runtime, receive):
                yield line
        finally:
            self._open_streams -= 1


def _parse_path(body: bytes) -> str:
    try:
        params = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise invalid_request("The question cannot be read.") from error
    path = params.get("path", "") if isinstance(params, dict) else None
    if not isinstance(path, str):
        raise invalid_request("path: must be a text.")
    return path


def _redirect(path: str, *headers: tuple[bytes, bytes]) -> Response:
    return Response(303, b"", "text/plain", headers=((b"location", path.encode()), *headers))


def _static(name: str, kind: str) -> Response:
    # No path traversal: the pattern of the route allows letters and one dot.
    file = _STATIC_DIRECTORY / name
    if not file.is_file():
        raise NotFoundError("There is no such file.", 404, code="InvalidPath.NotFound")
    return Response(200, file.read_bytes(), f"{_TYPES[kind]}; charset=utf-8")


def _render_template(name: str, status: int, **values: str) -> Response:
    """Fill in a template: each `{{name}}` becomes the value, escaped as text."""
    text = (_STATIC_DIRECTORY / name).read_text("utf-8")
    for placeholder, value in values.items():
        text = text.replace("{{" + placeholder + "}}", html.escape(value))
    return Response(status, text.encode(), "text/html; charset=utf-8")
