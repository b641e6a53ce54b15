"""The service: routes, and the boundary at which every failure becomes an answer."""

from __future__ import annotations

import logging
import re

from agentbay.errors import AgentBayError
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
    send_response,
    while_connected,
)
from agentbay.local.direct import call_directly
from agentbay.local.guard import Guard
from agentbay.local.refusals import shutting_down
from agentbay.local.rpc import call_action
from agentbay.local.runtime import Runtime

__all__ = ["Application", "handlers"]  # importing the handlers registers them

_logger = logging.getLogger(__name__)

_BODY_LIMIT = 64 << 20
_DIRECT = re.compile(r"/link/([^/]+)/callTool")
_PORT = re.compile(r"/(?:request_ai|websocket_ai)/([^/]+)(?:/.*)?")
_LATER = re.compile(r"/(?:ws/.*|view)")


class Application:
    """The service as an ASGI application."""

    def __init__(self, runtime: Runtime, key: str) -> None:
        self._runtime, self._guard = runtime, Guard(key, runtime.address)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request_id = envelope.new_request_id()
        try:
            response = await self._answer(read_head(scope), receive, request_id)
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
        await send_response(send, response)

    async def _answer(self, request: Request, receive: Receive, request_id: str) -> Response:
        if objection := self._guard.objection(request.headers):
            return envelope.failure(403, "Forbidden", objection, request_id)
        if request.path == "/healthz":
            return as_json({"status": "ok"})
        if port := _PORT.fullmatch(request.path):
            return self._port(port[1], request_id)
        if _LATER.fullmatch(request.path):
            return _not_here_yet(request_id)
        if request.method != "POST":
            return envelope.failure(405, "UnsupportedHTTPMethod", "Actions are sent with POST.", request_id)
        if self._runtime.sessions.closing:
            raise shutting_down()
        body = await read_body(receive, _BODY_LIMIT)
        if direct := _DIRECT.fullmatch(request.path):
            return await while_connected(call_directly(self._runtime, direct[1], request, body), receive)
        return await while_connected(call_action(self._runtime, self._guard, request, body, request_id), receive)

    def _port(self, token: str, request_id: str) -> Response:
        try:
            ports.resolve(self._runtime.sessions, token)
        except ValueError:
            return envelope.failure(404, "InvalidLink.NotFound", "There is no such link.", request_id)
        return _not_here_yet(request_id)


def _not_here_yet(request_id: str) -> Response:
    return envelope.failure(501, "NotSupported.Local", "The local runtime does not offer this yet.", request_id)
