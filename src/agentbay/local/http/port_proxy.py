"""Passing requests through a link to what listens on a port inside a session: HTTP as it streams, and WebSockets."""

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

from agentbay.errors import ServerError, ServiceUnavailableError
from agentbay.local.http.asgi import ClientDisconnected, Receive, Scope, Send
from agentbay.local.sessions.session import Session

_MAX_REQUESTS_PER_SESSION = 256  # requests to ports of one session under way
_UPSTREAM_TIMEOUT_SECONDS = 10.0  # seconds for a connection, and for a program to take what is sent
_CHUNK_BYTES = 1 << 16
_MAX_FRAME_BYTES = 64 << 20
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)
_REWRITTEN_HEADERS = frozenset({b"host", b"origin", b"expect", b"content-length"})
_DROPPED_RESPONSE_HEADERS = frozenset(
    {b"service-worker-allowed"}
)  # would let a session's program answer for the runtime's own page
_RESERVED_CLOSE_CODES = frozenset({1004, 1005, 1006, 1015})  # close codes that say how no code came
# websockets logs headers, tokens too; nobody shall switch this on
_DISABLED_LOGGER = logging.Logger("agentbay.local.http.port_proxy")  # noqa: LOG001
_DISABLED_LOGGER.disabled = True

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class ProxyTarget:
    """Where a link leads.

    Attributes:
        target: Path and query, as they are to arrive there.
        prefix: What stands before that path in the link.
    """

    session: Session
    port: int
    path_and_query: str
    prefix: str

    @property
    def host_header(self) -> bytes:
        """What the program is told as its own name."""
        return b"127.0.0.1:%d" % self.port


async def proxy_request(to: ProxyTarget, scope: Scope, receive: Receive, send: Send) -> None:
    """Pass a request on, and its answer back, both as they come.

    Raises:
        AgentBayError: There is no answer.
        Disconnected: The client has gone.
    """
    with _limit_requests(to.session), to.session.using():
        body = _RequestBody(scope, receive)
        work = asyncio.ensure_future(_forward(to, scope, body, send))
        gone = asyncio.ensure_future(body.wait_for_disconnect())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientDisconnected
            work.result()
        finally:
            gone.cancel()
            work.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)


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
    """The body of a request, and what comes after it: the news that the client has gone."""

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
        """Return when the client has gone, which shows only once its body is read."""
        await self._read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _forward(to: ProxyTarget, scope: Scope, body: _RequestBody, send: Send) -> None:
    stream = await _connect_stream(to)
    origin = httpcore.Origin(b"http", b"127.0.0.1", to.port)
    connection = httpcore.AsyncHTTP11Connection(origin, stream)
    try:
        request = httpcore.Request(
            scope["method"],
            httpcore.URL(scheme=b"http", host=b"127.0.0.1", port=to.port, target=to.path_and_query.encode("ascii")),
            headers=_request_headers(to, scope, body),
            content=body if body.has_body else None,
            extensions={"timeout": {"write": _UPSTREAM_TIMEOUT_SECONDS}},
        )
        try:
            response = await connection.handle_async_request(request)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise _bad_gateway(to, str(error) or type(error).__name__) from error
        await send(
            {"type": "http.response.start", "status": response.status, "headers": _response_headers(to, response)}
        )
        # An answer that breaks off must break off for the client too: what is raised from here on ends the connection.
        async for chunk in response.aiter_stream():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise UpstreamAborted from error
    finally:
        await stream.aclose()


class UpstreamAborted(Exception):
    """The answer ended in its midst."""


def _request_headers(to: ProxyTarget, scope: Scope, body: _RequestBody) -> Headers:
    headers = _without_hop_by_hop(scope["headers"], _REWRITTEN_HEADERS)
    host = b"".join(value for name, value in scope["headers"] if name == b"host")
    headers += [
        (b"host", to.host_header),
        (b"connection", b"close"),
        (b"x-forwarded-host", host),
        (b"x-forwarded-proto", scope["scheme"].encode()),
        (b"x-forwarded-prefix", to.prefix.encode("ascii")),
    ]
    if any(name == b"origin" for name, _ in scope["headers"]):
        headers.append((b"origin", b"http://" + to.host_header))
    if body.chunked:
        headers.append((b"transfer-encoding", b"chunked"))
    elif body.has_body:
        headers += [(name, value) for name, value in scope["headers"] if name == b"content-length"]
    return headers


def _response_headers(to: ProxyTarget, response: httpcore.Response) -> Headers:
    headers = _without_hop_by_hop(
        [(name.lower(), value) for name, value in response.headers], _DROPPED_RESPONSE_HEADERS
    )
    return [(name, _rewrite_location(to, value) if name == b"location" else value) for name, value in headers]


def _rewrite_location(to: ProxyTarget, location: bytes) -> bytes:
    """Keep a redirection within the link: a program behind it does not know the path under which it is seen."""
    path = location.removeprefix(b"http://" + to.host_header)
    return to.prefix.encode("ascii") + path if path.startswith(b"/") and not path.startswith(b"//") else location


def _without_hop_by_hop(headers: Headers, besides: frozenset[bytes]) -> Headers:
    named = {part.strip().lower() for name, value in headers if name == b"connection" for part in value.split(b",")}
    dropped = _HOP_BY_HOP | named | besides
    return [(name, value) for name, value in headers if name not in dropped]


def _bad_gateway(to: ProxyTarget, why: str) -> ServerError:
    return ServerError(f"What listens on port {to.port} of the session gave no answer: {why}.", 502, code="BadGateway")


async def _connect_stream(to: ProxyTarget) -> _SessionStream:
    try:
        async with asyncio.timeout(_UPSTREAM_TIMEOUT_SECONDS):
            with to.session.using() as sandbox:
                made = await sandbox.connect(to.port)
            reader, writer = await asyncio.open_connection(sock=made)
    except (OSError, TimeoutError) as error:
        message = f"Nothing listens on port {to.port} of the session."
        raise ServerError(message, 502, code="BadGateway.NothingListens") from error
    return _SessionStream(reader, writer)


class _SessionStream(httpcore.AsyncNetworkStream):
    """A connection into a session, as httpcore wants it."""

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


async def proxy_websocket(to: ProxyTarget, scope: Scope, receive: Receive, send: Send) -> None:
    """Connect to a WebSocket inside, and pass on what either side says.

    Raises:
        AgentBayError: There is none.
    """
    with _limit_requests(to.session):
        inner = await _connect_websocket(to, scope)
        try:
            with suppress(OSError):  # the client has gone
                await _relay(inner, *_touching_session(to.session, receive, send))
        finally:
            await inner.close()


def _touching_session(session: Session, receive: Receive, send: Send) -> tuple[Receive, Send]:
    """Have each message count as activity of the session: a connection alone is none."""

    async def take() -> MutableMapping[str, Any]:
        message = await receive()
        session.lifecycle.touch()
        return message

    async def give(message: MutableMapping[str, Any]) -> None:
        session.lifecycle.touch()
        await send(message)

    return take, give


async def _relay(inner: ClientConnection, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.accept", "subprotocol": inner.subprotocol})
    ways = [
        asyncio.ensure_future(_relay_to_session(inner, receive)),
        asyncio.ensure_future(_relay_to_client(inner, send)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _connect_websocket(to: ProxyTarget, scope: Scope) -> ClientConnection:
    kept = _without_hop_by_hop(scope["headers"], _REWRITTEN_HEADERS)
    headers = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in kept
        if not name.startswith(b"sec-websocket-")
    ]
    try:
        with to.session.using() as sandbox:
            made = await sandbox.connect(to.port)
        return await connect(
            f"ws://127.0.0.1:{to.port}{to.path_and_query}",
            sock=made,
            subprotocols=[Subprotocol(name) for name in scope["subprotocols"]] or None,
            additional_headers=headers,
            user_agent_header=None,
            compression=None,
            open_timeout=_UPSTREAM_TIMEOUT_SECONDS,
            ping_interval=None,
            close_timeout=1.0,
            max_size=_MAX_FRAME_BYTES,
            logger=_DISABLED_LOGGER,
            proxy=None,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        raise ServerError(f"Port {to.port} answered with HTTP {status}.", status, code="BadGateway") from error
    except ConnectionRefusedError as error:
        message = f"Nothing listens on port {to.port} of the session."
        raise ServerError(message, 502, code="BadGateway.NothingListens") from error
    except (InvalidHandshake, WebSocketException, OSError, EOFError, ValueError) as error:
        raise _bad_gateway(to, type(error).__name__) from error


async def _relay_to_session(inner: ClientConnection, receive: Receive) -> None:
    with suppress(ConnectionClosed):
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code") or 1000
                await inner.close(1000 if code in _RESERVED_CLOSE_CODES else code, message.get("reason") or "")
                return
            text = message.get("text")
            await inner.send(text if text is not None else message.get("bytes") or b"")


async def _relay_to_client(inner: ClientConnection, send: Send) -> None:
    try:
        while True:
            said = await inner.recv()
            await send({"type": "websocket.send", "text" if isinstance(said, str) else "bytes": said})
    except ConnectionClosed:
        code = inner.close_code or 1011
        code = 1011 if code == 1006 else 1000 if code in _RESERVED_CLOSE_CODES else code
        await send({"type": "websocket.close", "code": code, "reason": inner.close_reason or ""})
