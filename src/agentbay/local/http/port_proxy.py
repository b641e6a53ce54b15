"""The reverse proxy behind links: HTTP and WebSockets to ports inside sessions.

Bodies stream in both directions with back pressure: a side is read only as fast as the other side takes the data.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpcore
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from agentbay._wire.frames import MAX_FRAME_BYTES
from agentbay.errors import ServerError, ServiceUnavailableError
from agentbay.local.headers import Headers, drop_hop_by_hop
from agentbay.local.http.asgi import ClientDisconnected, Receive, Scope, Send
from agentbay.local.sessions.session import Session

_MAX_REQUESTS_PER_SESSION = 256  # under way at a time
_UPSTREAM_TIMEOUT_SECONDS = 10.0  # for a connection, and for a program to read what is sent to it
_CHUNK_BYTES = 1 << 16

_REWRITTEN_HEADERS = frozenset({b"host", b"origin", b"expect", b"content-length"})
# It would let a program in a session register a service worker that answers for the dashboard.
_DROPPED_RESPONSE_HEADERS = frozenset({b"service-worker-allowed"})
_RESERVED_CLOSE_CODES = frozenset({1004, 1005, 1006, 1015})  # codes that no close frame may carry
# The library logs all headers, among them tokens. A logger outside the hierarchy cannot be switched on by accident.
_DISABLED_LOGGER = logging.Logger("agentbay.local.http.port_proxy")  # noqa: LOG001
_DISABLED_LOGGER.disabled = True


@dataclass(frozen=True, slots=True)
class ProxyTarget:
    """Where a request through a link goes.

    Attributes:
        path_and_query: As the program in the session gets them.
        prefix: The part of the link's path before that path.
    """

    session: Session
    port: int
    path_and_query: str
    prefix: str

    @property
    def host_header(self) -> bytes:
        """The Host header that the program gets."""
        return b"127.0.0.1:%d" % self.port


async def proxy_request(target: ProxyTarget, scope: Scope, receive: Receive, send: Send) -> None:
    """Forward a request and stream the answer back.

    Raises:
        AgentBayError: The program in the session gave no answer.
        ClientDisconnected: The client disconnected.
        UpstreamAborted: The program broke its answer off.
    """
    with _limit_requests(target.session), target.session.using():
        body = _RequestBody(scope, receive)
        forwarding = asyncio.ensure_future(_forward(target, scope, body, send))
        disconnected = asyncio.ensure_future(body.wait_for_disconnect())
        try:
            await asyncio.wait({forwarding, disconnected}, return_when=asyncio.FIRST_COMPLETED)
            if not forwarding.done():
                raise ClientDisconnected
            forwarding.result()
        finally:
            disconnected.cancel()
            forwarding.cancel()
            await asyncio.gather(forwarding, disconnected, return_exceptions=True)


@contextmanager
def _limit_requests(session: Session) -> Iterator[None]:
    if session.hub.active_port_requests >= _MAX_REQUESTS_PER_SESSION:
        raise ServiceUnavailableError(
            f"{_MAX_REQUESTS_PER_SESSION} requests to this session are under way already.", 503, code="TooMany"
        )
    session.hub.active_port_requests += 1
    try:
        yield
    finally:
        session.hub.active_port_requests -= 1


class _RequestBody:
    """The body of a client's request, and the disconnect that may follow it."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        names = {name for name, _ in scope["headers"]}
        self.chunked = b"transfer-encoding" in names
        self.has_body = self.chunked or b"content-length" in names
        self._receive = receive
        self._read = asyncio.Event()
        if not self.has_body:
            self._read.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            more = message.get("more_body", False)
            if chunk := message.get("body", b""):
                yield chunk
        self._read.set()

    async def wait_for_disconnect(self) -> None:
        """Return when the client has disconnected, which ASGI tells only after the body."""
        await self._read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _forward(target: ProxyTarget, scope: Scope, body: _RequestBody, send: Send) -> None:
    stream = await _connect_stream(target)
    origin = httpcore.Origin(b"http", b"127.0.0.1", target.port)
    connection = httpcore.AsyncHTTP11Connection(origin, stream)
    path_and_query = target.path_and_query.encode("ascii")
    try:
        request = httpcore.Request(
            scope["method"],
            httpcore.URL(scheme=b"http", host=b"127.0.0.1", port=target.port, target=path_and_query),
            headers=_request_headers(target, scope, body),
            content=body if body.has_body else None,
            extensions={"timeout": {"write": _UPSTREAM_TIMEOUT_SECONDS}},
        )
        try:
            response = await connection.handle_async_request(request)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise _bad_gateway(target, str(error) or type(error).__name__) from error
        headers = _response_headers(target, response)
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        # An error from here on must break the answer off for the client too, or it would seem to be whole.
        async for chunk in response.aiter_stream():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise UpstreamAborted from error
    finally:
        await stream.aclose()


class UpstreamAborted(Exception):
    """The program in the session broke its answer off."""


def _request_headers(target: ProxyTarget, scope: Scope, body: _RequestBody) -> Headers:
    headers = drop_hop_by_hop(scope["headers"], dropped=_REWRITTEN_HEADERS)
    host = b"".join(value for name, value in scope["headers"] if name == b"host")
    headers += [
        (b"host", target.host_header),
        (b"connection", b"close"),
        (b"x-forwarded-host", host),
        (b"x-forwarded-proto", scope["scheme"].encode()),
        (b"x-forwarded-prefix", target.prefix.encode("ascii")),
    ]
    if any(name == b"origin" for name, _ in scope["headers"]):
        # Programs compare it with their Host header, to refuse cross-site requests.
        headers.append((b"origin", b"http://" + target.host_header))
    if body.chunked:
        headers.append((b"transfer-encoding", b"chunked"))
    elif body.has_body:
        headers += [(name, value) for name, value in scope["headers"] if name == b"content-length"]
    return headers


def _response_headers(target: ProxyTarget, response: httpcore.Response) -> Headers:
    headers = [(name.lower(), value) for name, value in response.headers]
    headers = drop_hop_by_hop(headers, dropped=_DROPPED_RESPONSE_HEADERS)
    return [(name, _rewrite_location(target, value) if name == b"location" else value) for name, value in headers]


def _rewrite_location(target: ProxyTarget, location: bytes) -> bytes:
    # A program does not know the path of its link: without the prefix, a redirect would lead out of the link.
    path = location.removeprefix(b"http://" + target.host_header)
    return target.prefix.encode("ascii") + path if path.startswith(b"/") and not path.startswith(b"//") else location


def _bad_gateway(target: ProxyTarget, reason: str) -> ServerError:
    message = f"What listens on port {target.port} of the session gave no answer: {reason}."
    return ServerError(message, 502, code="BadGateway")


def _nothing_listens(target: ProxyTarget) -> ServerError:
    message = f"Nothing listens on port {target.port} of the session."
    return ServerError(message, 502, code="BadGateway.NothingListens")


async def _connect_stream(target: ProxyTarget) -> _SessionStream:
    try:
        async with asyncio.timeout(_UPSTREAM_TIMEOUT_SECONDS):
            with target.session.using() as sandbox:
                connected = await sandbox.connect(target.port)
            reader, writer = await asyncio.open_connection(sock=connected)
    except (OSError, TimeoutError) as error:
        raise _nothing_listens(target) from error
    return _SessionStream(reader, writer)


class _SessionStream(httpcore.AsyncNetworkStream):
    """A connection into a session, in the form that httpcore expects."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return await self._reader.read(min(max_bytes, _CHUNK_BYTES))
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            self._writer.write(buffer)
            await self._writer.drain()
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        self._writer.transport.abort()

    def get_extra_info(self, info: str) -> Any:
        return None


async def proxy_websocket(target: ProxyTarget, scope: Scope, receive: Receive, send: Send) -> None:
    """Connect to a WebSocket in the session and relay messages in both directions.

    Raises:
        AgentBayError: The program in the session did not open the WebSocket.
    """
    with _limit_requests(target.session):
        upstream = await _connect_websocket(target, scope)
        try:
            with suppress(OSError):  # the client has disconnected
                await _relay(upstream, *_touching_session(target.session, receive, send))
        finally:
            await upstream.close()


def _touching_session(session: Session, receive: Receive, send: Send) -> tuple[Receive, Send]:
    # Each message counts as activity of the session; an open connection alone does not.
    async def receive_and_touch() -> MutableMapping[str, Any]:
        message = await receive()
        session.lifecycle.touch()
        return message

    async def touch_and_send(message: MutableMapping[str, Any]) -> None:
        session.lifecycle.touch()
        await send(message)

    return receive_and_touch, touch_and_send


async def _relay(upstream: ClientConnection, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.accept", "subprotocol": upstream.subprotocol})
    directions = [
        asyncio.ensure_future(_relay_to_session(upstream, receive)),
        asyncio.ensure_future(_relay_to_client(upstream, send)),
    ]
    try:
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for direction in directions:
            direction.cancel()
        await asyncio.gather(*directions, return_exceptions=True)


async def _connect_websocket(target: ProxyTarget, scope: Scope) -> ClientConnection:
    headers = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in drop_hop_by_hop(scope["headers"], dropped=_REWRITTEN_HEADERS)
        if not name.startswith(b"sec-websocket-")  # the library makes its own
    ]
    try:
        with target.session.using() as sandbox:
            connected = await sandbox.connect(target.port)
        return await connect(
            f"ws://127.0.0.1:{target.port}{target.path_and_query}",
            sock=connected,
            subprotocols=[Subprotocol(name) for name in scope["subprotocols"]] or None,
            additional_headers=headers,
            user_agent_header=None,
            compression=None,
            open_timeout=_UPSTREAM_TIMEOUT_SECONDS,
            ping_interval=None,
            close_timeout=1.0,
            max_size=MAX_FRAME_BYTES,
            logger=_DISABLED_LOGGER,
            proxy=None,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        raise ServerError(f"Port {target.port} answered with HTTP {status}.", status, code="BadGateway") from error
    except ConnectionRefusedError as error:
        raise _nothing_listens(target) from error
    except (InvalidHandshake, WebSocketException, OSError, EOFError, ValueError) as error:
        raise _bad_gateway(target, type(error).__name__) from error


async def _relay_to_session(upstream: ClientConnection, receive: Receive) -> None:
    with suppress(ConnectionClosed):
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code") or 1000
                await upstream.close(1000 if code in _RESERVED_CLOSE_CODES else code, message.get("reason") or "")
                return
            text = message.get("text")
            await upstream.send(text if text is not None else message.get("bytes") or b"")


async def _relay_to_client(upstream: ClientConnection, send: Send) -> None:
    try:
        while True:
            data = await upstream.recv()
            await send({"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data})
    except ConnectionClosed:
        code = upstream.close_code or 1011
        code = 1011 if code == 1006 else 1000 if code in _RESERVED_CLOSE_CODES else code
        await send({"type": "websocket.close", "code": code, "reason": upstream.close_reason or ""})
