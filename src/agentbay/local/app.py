"""The service: routes, and the boundary at which every failure becomes an answer."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from agentbay.errors import AgentBayError, NotFoundError, PermissionDeniedError
from agentbay.local import envelope, handlers, ports
from agentbay.local.asgi import (
    BodyTooLarge,
    Disconnected,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    as_json,
    read_body,
    read_head,
    refuse_websocket,
    send_response,
    while_connected,
)
from agentbay.local.contexts import objects
from agentbay.local.direct import call_directly
from agentbay.local.guard import Guard, authority
from agentbay.local.listening import LOGIN
from agentbay.local.page.routes import Page
from agentbay.local.refusals import shutting_down
from agentbay.local.rpc import call_action
from agentbay.local.runtime import Runtime
from agentbay.local.websocket import admit, converse

if TYPE_CHECKING:
    from agentbay.local.links import Destination

__all__ = ["Application", "handlers"]  # importing the handlers registers them

_logger = logging.getLogger(__name__)

_BODY_LIMIT = 64 << 20
_DIRECT = re.compile(r"/link/([^/]+)/callTool")
_PORT = re.compile(r"(/(?:request_ai/([^/]+)/path|websocket_ai/([^/]+)))(/.*)?")
_WEBSOCKET = re.compile(r"/ws/([^/]+)")


class Application:
    """The service as an ASGI application."""

    def __init__(self, runtime: Runtime, key: str) -> None:
        self._runtime, self._guard = runtime, Guard(key, runtime.place)
        self._page = Page(runtime, self._guard)
        self._calls = 0  # under way
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = envelope.new_request_id()
        try:
            if scope["type"] == "websocket":
                await self._converse(scope, receive, send)
                return
            request = read_head(scope)
            if link := _PORT.fullmatch(request.path):
                await self._pass_request(request, link, scope, receive, send)
                return
            response = await self._answer(request, receive, request_id)
        except Disconnected:
            return
        except BodyTooLarge:
            message = f"The body is larger than {_BODY_LIMIT >> 20} MiB."
            response = envelope.failure(413, "RequestTooLarge", message, request_id)
        except AgentBayError as error:
            response = envelope.refusal(error, request_id)
        except Exception:  # the boundary: a bug must be an answer, and in the log, not a hanging client
            _logger.exception("request %s failed", request_id)
            response = envelope.failure(500, "InternalError", "The local runtime failed; its log says why.", request_id)
        if scope["type"] == "websocket":
            await refuse_websocket(receive, send, response)
        else:
            await send_response(send, response)

    async def _converse(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = read_head({**scope, "method": "GET"})
        await receive()  # websocket.connect
        self._check(request)
        if wanted := _WEBSOCKET.fullmatch(request.path):
            session = admit(self._runtime, wanted[1], request.headers)
            with suppress(OSError):  # what the web server raises when the client has gone
                await converse(session, receive, send)
        elif link := _PORT.fullmatch(request.path):
            from agentbay.local.links import pass_websocket

            await pass_websocket(self._destination(scope, link), scope, receive, send)
        else:
            raise NotFoundError("There is no such WebSocket.", 404, code="InvalidPath.NotFound")

    async def _pass_request(
        self, request: Request, link: re.Match[str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        from agentbay.local.links import BrokenOff, pass_request  # here, since what it needs takes long to import

        self._check(request)
        with suppress(BrokenOff):  # the web server ends the connection of an answer that was not finished
            await pass_request(self._destination(scope, link), scope, receive, send)

    def _check(self, request: Request) -> None:
        if objection := self._guard.objection(request.headers, request.reached):
            raise PermissionDeniedError(objection, 403, code="Forbidden")

    def _destination(self, scope: Scope, link: re.Match[str]) -> Destination:
        from agentbay.local.links import Destination

        try:
            session, port = ports.resolve(self._runtime.sessions, link[2] or link[3])
        except ValueError as error:
            raise NotFoundError("There is no such link.", 404, code="InvalidLink.NotFound") from error
        # as it came, not as it was decoded
        path = scope["raw_path"].decode("latin-1").removeprefix(link[1]) or "/"
        query = scope["query_string"].decode("latin-1")
        return Destination(session, port, f"{path}?{query}" if query else path, link[1])

    async def _answer(self, request: Request, receive: Receive, request_id: str) -> Response:
        self._check(request)
        if request.path == "/healthz":
            return as_json({"status": "ok", **self._runtime.facts()})
        if self._page.owns(request):
            return await self._page.serve(request, receive)
        if request.path.startswith(objects.PREFIX):
            return await objects.serve(self._runtime.contexts, request, receive)
        if request.method != "POST":
            return envelope.failure(405, "UnsupportedHTTPMethod", "Actions are sent with POST.", request_id)
        with self._counted():
            return await self._act(request, receive, request_id)

    async def _act(self, request: Request, receive: Receive, request_id: str) -> Response:
        body = await read_body(receive, _BODY_LIMIT)
        if self._runtime.sessions.closing:
            raise shutting_down()
        if direct := _DIRECT.fullmatch(request.path):
            return await while_connected(call_directly(self._runtime, direct[1], request, body), receive)
        runtime = self._seen_by(request)
        return await while_connected(call_action(runtime, self._guard, request, body, request_id), receive)

    def _seen_by(self, request: Request) -> Runtime:
        """Return the runtime at the address by which a client came: URLs made for that client must name it."""
        runtime, seen = self._runtime, request.headers["host"]
        if seen == runtime.place.address:
            return runtime
        host, port = authority(seen)
        return replace(runtime, place=replace(runtime.place, host=host, port=port))

    def invite(self) -> str:
        """Return a URL that logs a browser in to the page: once, within minutes."""
        return f"{self._runtime.place.http}{LOGIN}#{self._page.tickets.make()}"

    async def drained(self) -> None:
        """Return when no call is under way."""
        await self._idle.wait()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._calls += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if self._calls == 0:
                self._idle.set()
