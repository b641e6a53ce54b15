"""The service as an ASGI application: routes, and failures as answers."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from attrs import evolve

from agentbay.errors import AgentBayError, NotFoundError, PermissionDeniedError
from agentbay.local.api_errors import not_logged_in, shutting_down
from agentbay.local.http import asgi, envelope, image_uploads, presigned_files, raw_calls
from agentbay.local.http.body_budget import BodyBudget
from agentbay.local.http.direct import call_tool_directly, has_session_token
from agentbay.local.http.origin_check import OriginCheck, parse_host_header
from agentbay.local.http.port_links import PortLinks
from agentbay.local.http.rpc import call_action, find_authorization
from agentbay.local.http.websocket import authorize_websocket, serve_websocket_client
from agentbay.local.runtime import Runtime

if TYPE_CHECKING:
    from agentbay.local.http.mcp_endpoint import McpEndpoint

_logger = logging.getLogger(__name__)

_MAX_BODY_BYTES = 64 << 20  # of an action or a direct tool call
_DIRECT_CALL_PATH = re.compile(r"/link/([^/]+)/callTool")

_MCP_PREFIX = "/v2/"  # of the MCP endpoint, as on the cloud
_WEBSOCKET_PATH = re.compile(r"/ws/([^/]+)")


class DashboardRoutes(Protocol):
    """The part of the URL space that the dashboard answers."""

    async def serve(self, request: asgi.Request, receive: asgi.Receive) -> asgi.Response:
        """Answer a request for the dashboard."""
        ...


def _is_for_dashboard(request: asgi.Request) -> bool:
    return (request.path == "/" and request.method == "GET") or f"{request.path}/".startswith("/view/")


class Application:
    """Answers the requests and WebSockets of one runtime."""

    def __init__(
        self,
        runtime: Runtime,
        origin_check: OriginCheck,
        dashboard: Callable[[], DashboardRoutes],
    ) -> None:
        self._runtime, self._origin_check, self._dashboard = runtime, origin_check, dashboard
        self._links = PortLinks(runtime, origin_check)
        self._bodies = BodyBudget(self._has_valid_secret)
        self._mcp: McpEndpoint | None = None
        self._active_calls = 0
        self._idle = asyncio.Event()  # set while no call is under way
        self._idle.set()

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        request_id = envelope.new_request_id()
        try:
            response = await self._serve(scope, receive, send, request_id)
        except asgi.ClientDisconnected:
            # Nobody is there to read an answer.
            return
        except asgi.BodyTooLarge as error:
            message = f"The body is larger than {error.limit:,} bytes."
            response = envelope.error_response(413, "RequestTooLarge", message, request_id)
        except AgentBayError as error:
            response = envelope.response_for_error(error, request_id)
        except Exception:  # the boundary: a bug must be an answer, and in the log, not a hanging client
            _logger.exception("request %s failed", request_id)
            response = envelope.error_response(
                500, "InternalError", "The local runtime failed; its log says why.", request_id
            )
        if response is None:
            return
        if scope["type"] == "websocket":
            await asgi.reject_websocket(receive, send, response)
        else:
            # The connection was cut off after the head, so that the client sees the body end early.
            with suppress(asgi.ResponseAborted):
                if response.stream is None:
                    await asgi.send_response(send, response)
                else:
                    await asgi.send_while_connected(send, receive, response)

    async def _serve(
        self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send, request_id: str
    ) -> asgi.Response | None:
        """Return the answer that is left to send, or None."""
        if scope["type"] == "websocket":
            await self._serve_websocket(scope, receive, send)
            return None
        request = asgi.parse_request(scope)
        # Links come first and are checked on their own: they have host names and origins that `_check` would refuse.
        if self._links.is_link(request):
            await self._proxy_request(request, scope, receive, send)
            return None
        if request.path.startswith(_MCP_PREFIX):
            await self._serve_mcp(request, receive, send)
            return None
        return await self._route(request, receive, request_id)

    async def _serve_websocket(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        # The scope of a WebSocket names no method, since the handshake is always a GET (RFC 6455).
        request = asgi.parse_request({**scope, "method": "GET"})
        await receive()  # websocket.connect
        if self._links.is_link(request):
            from agentbay.local.http.port_websocket import proxy_websocket

            await proxy_websocket(self._links.resolve(request, scope), self._for_session(scope))
            return
        self._check(request)
        if match := _WEBSOCKET_PATH.fullmatch(request.path):
            session = authorize_websocket(self._runtime, match[1], request.headers)
            with suppress(OSError):  # raised by the web server when the client has disconnected
                await serve_websocket_client(session, receive, send)
        else:
            raise NotFoundError("There is no such WebSocket.", 404, code="InvalidPath.NotFound")

    async def _proxy_request(
        self, request: asgi.Request, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send
    ) -> None:
        # Imported here, since its libraries take long to import and few runtimes need them.
        from agentbay.local.http.port_proxy import proxy_request

        target = self._links.resolve(request, scope)
        if response := self._links.answer_browser(request, target):
            await asgi.send_response(send, response)
            return
        with suppress(asgi.ResponseAborted):
            await proxy_request(target, self._for_session(scope), receive, send)

    async def _serve_mcp(self, request: asgi.Request, receive: asgi.Receive, send: asgi.Send) -> None:
        self._check(request)
        if self._runtime.sessions.closing:
            raise shutting_down()
        if self._mcp is None and not self._origin_check.has_mcp_key(request.query, request.headers):
            raise not_logged_in()
        endpoint = self._mcp or await self._open_mcp_endpoint()
        await endpoint.serve(self._runtime_with_client_address(request), request, receive, send)

    async def _open_mcp_endpoint(self) -> McpEndpoint:
        if find_spec("mcp") is None:
            text = 'The runtime needs the package mcp for this endpoint: pip install "agentbay-sdk[mcp]"'
            raise NotFoundError(text, 404, code="InvalidPath.NotFound")
        # In a thread, as the package takes long to import.
        module = await asyncio.to_thread(import_module, "agentbay.local.http.mcp_endpoint")
        made: McpEndpoint = module.McpEndpoint(self._origin_check)
        self._mcp = self._mcp or made  # a concurrent request may have made one first
        return self._mcp

    def _for_session(self, scope: asgi.Scope) -> asgi.Scope:
        """Return the scope without the API key, which sessions must not see."""
        headers = [
            (name, value)
            for name, value in scope["headers"]
            if name != b"authorization" or not self._origin_check.has_valid_key(value.decode("latin-1"))
        ]
        return {**scope, "headers": headers}

    def _check(self, request: asgi.Request) -> None:
        if reason := self._origin_check.rejection_reason(request.headers, request.local_address):
            raise PermissionDeniedError(reason, 403, code="Forbidden")

    async def _route(self, request: asgi.Request, receive: asgi.Receive, request_id: str) -> asgi.Response:
        self._check(request)
        if request.path == "/healthz":
            return asgi.json_response({"status": "ok", **self._runtime.health_info()})
        if _is_for_dashboard(request):
            return await self._dashboard().serve(request, receive)
        if request.path.startswith(presigned_files.PATH_PREFIX):
            return await presigned_files.serve_presigned_file(self._runtime.context_service, request, receive)
        if request.path.startswith(image_uploads.PATH_PREFIX):
            return await image_uploads.serve_image_upload(self._runtime.images, request, receive)
        if request.method != "POST":
            return envelope.error_response(405, "UnsupportedHTTPMethod", "Actions are sent with POST.", request_id)
        with self._counting_call():
            match = _DIRECT_CALL_PATH.fullmatch(request.path)
            if match and request.content_type == raw_calls.CONTENT_TYPE:
                return await raw_calls.serve_raw_call(self._runtime, match[1], request, receive)
            return await self._call_api(request, receive, request_id)

    async def _call_api(self, request: asgi.Request, receive: asgi.Receive, request_id: str) -> asgi.Response:
        with self._bodies.watch(request) as on_chunk:
            body = await asgi.read_body(receive, _MAX_BODY_BYTES, on_chunk)
        # Asked only now, because the shutdown may have begun while the body arrived.
        if self._runtime.sessions.closing:
            raise shutting_down()
        if match := _DIRECT_CALL_PATH.fullmatch(request.path):
            return await asgi.cancel_on_disconnect(call_tool_directly(self._runtime, match[1], request, body), receive)
        runtime = self._runtime_with_client_address(request)
        call = call_action(runtime, self._origin_check, request, body, request_id)
        return await asgi.cancel_on_disconnect(call, receive)

    def _has_valid_secret(self, request: asgi.Request, beginning_of_body: bytes) -> bool:
        """Return whether a request shows a key or token, before reading its body."""
        if match := _DIRECT_CALL_PATH.fullmatch(request.path):
            return has_session_token(self._runtime, match[1], request)
        values = find_authorization(request, beginning_of_body)
        return any(self._origin_check.has_valid_key(value) for value in values)

    def _runtime_with_client_address(self, request: asgi.Request) -> Runtime:
        # URLs made for a client must name the address that the client uses.
        # A Host header is there: `_check` has refused requests without one.
        runtime, host_header = self._runtime, request.headers["host"]
        if host_header == runtime.address.authority:
            return runtime
        host, port = parse_host_header(host_header)
        return evolve(runtime, address=evolve(runtime.address, host=host, port=port))

    def close_streams(self) -> None:
        """End the streams, which otherwise last as long as their clients stay."""
        if self._mcp is not None:
            self._mcp.close()

    async def wait_until_idle(self) -> None:
        """Return when no call is under way."""
        await self._idle.wait()

    @contextmanager
    def _counting_call(self) -> Iterator[None]:
        self._active_calls += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._active_calls -= 1
            if self._active_calls == 0:
                self._idle.set()
