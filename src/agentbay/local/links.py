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
from agentbay.local.asgi import Disconnected, Receive, Scope, Send
from agentbay.local.session import Session

_MOST = 256  # requests to ports of one session under way
_PATIENCE = 10.0  # seconds for a connection, and for a program to take what is sent
_CHUNK = 1 << 16
_LARGEST_FRAME = 64 << 20
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)
_OURS = frozenset({b"host", b"origin", b"expect", b"content-length"})
_TOO_FAR = frozenset({b"service-worker-allowed"})  # would let a session's program answer for the runtime's own page
_UNSENDABLE = frozenset({1004, 1005, 1006, 1015})  # close codes that say how no code came
# websockets logs headers, tokens too; nobody shall switch this on
_SILENT = logging.Logger("agentbay.local.links")  # noqa: LOG001
_SILENT.disabled = True

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a link leads.

    Attributes:
        target: Path and query, as they are to arrive there.
        prefix: What stands before that path in the link.
    """

    session: Session
    port: int
    target: str
    prefix: str

    @property
    def host(self) -> bytes:
        """What the program is told as its own name."""
        return b"127.0.0.1:%d" % self.port


async def pass_request(to: Destination, scope: Scope, receive: Receive, send: Send) -> None:
    """Pass a request on, and its answer back, both as they come.

    Raises:
        AgentBayError: There is no answer.
        Disconnected: The client has gone.
    """
    with _counted(to.session), to.session.at_work():
        body = _Body(scope, receive)
        work = asyncio.ensure_future(_exchange(to, scope, body, send))
        gone = asyncio.ensure_future(body.disconnected())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Disconnected
            work.result()
        finally:
            gone.cancel()
            work.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)


@contextmanager
def _counted(session: Session) -> Iterator[None]:
    if session.hub.passing >= _MOST:
        raise ServiceUnavailableError(f"{_MOST} requests to this session are under way already.", 503, code="TooMany")
    session.hub.passing += 1
    try:
        yield
    finally:
        session.hub.passing -= 1


class _Body:
    """The body of a request, and what comes after it: the news that the client has gone."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        names = {name for name, _ in scope["headers"]}
        self.chunked = b"transfer-encoding" in names
        self.present = self.chunked or b"content-length" in names
        self._receive = receive
        self._read = asyncio.Event()
        if not self.present:
            self._read.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            more = message.get("more_body", False)
            if chunk := message.get("body", b""):
                yield chunk
        self._read.set()

    async def disconnected(self) -> None:
        """Return when the client has gone, which shows only once its body is read."""
        await self._read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _exchange(to: Destination, scope: Scope, body: _Body, send: Send) -> None:
    stream = await _open(to)
    origin = httpcore.Origin(b"http", b"127.0.0.1", to.port)
    connection = httpcore.AsyncHTTP11Connection(origin, stream)
    try:
        request = httpcore.Request(
            scope["method"],
            httpcore.URL(scheme=b"http", host=b"127.0.0.1", port=to.port, target=to.target.encode("ascii")),
            headers=_request_headers(to, scope, body),
            content=body if body.present else None,
            extensions={"timeout": {"write": _PATIENCE}},
        )
        try:
            response = await connection.handle_async_request(request)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise _no_answer(to, str(error) or type(error).__name__) from error
        await send(
            {"type": "http.response.start", "status": response.status, "headers": _response_headers(to, response)}
        )
        # An answer that breaks off must break off for the client too: what is raised from here on ends the connection.
        async for chunk in response.aiter_stream():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise BrokenOff from error
    finally:
        await stream.aclose()


class BrokenOff(Exception):
    """The answer ended in its midst."""


def _request_headers(to: Destination, scope: Scope, body: _Body) -> Headers:
    headers = _end_to_end(scope["headers"], _OURS)
    host = b"".join(value for name, value in scope["headers"] if name == b"host")
    headers += [
        (b"host", to.host),
        (b"connection", b"close"),
        (b"x-forwarded-host", host),
        (b"x-forwarded-proto", scope["scheme"].encode()),
        (b"x-forwarded-prefix", to.prefix.encode("ascii")),
    ]
    if any(name == b"origin" for name, _ in scope["headers"]):
        headers.append((b"origin", b"http://" + to.host))
    if body.chunked:
        headers.append((b"transfer-encoding", b"chunked"))
    elif body.present:
        headers += [(name, value) for name, value in scope["headers"] if name == b"content-length"]
    return headers


def _response_headers(to: Destination, response: httpcore.Response) -> Headers:
    headers = _end_to_end([(name.lower(), value) for name, value in response.headers], _TOO_FAR)
    return [(name, _relocated(to, value) if name == b"location" else value) for name, value in headers]


def _relocated(to: Destination, location: bytes) -> bytes:
    """Keep a redirection within the link: a program behind it does not know the path under which it is seen."""
    path = location.removeprefix(b"http://" + to.host)
    return to.prefix.encode("ascii") + path if path.startswith(b"/") and not path.startswith(b"//") else location


def _end_to_end(headers: Headers, besides: frozenset[bytes]) -> Headers:
    named = {part.strip().lower() for name, value in headers if name == b"connection" for part in value.split(b",")}
    dropped = _HOP_BY_HOP | named | besides
    return [(name, value) for name, value in headers if name not in dropped]


def _no_answer(to: Destination, why: str) -> ServerError:
    return ServerError(f"What listens on port {to.port} of the session gave no answer: {why}.", 502, code="BadGateway")


async def _open(to: Destination) -> _Stream:
    try:
        async with asyncio.timeout(_PATIENCE):
            made = await to.session.connect(to.port)
            reader, writer = await asyncio.open_connection(sock=made)
    except (OSError, TimeoutError) as error:
        message = f"Nothing listens on port {to.port} of the session."
        raise ServerError(message, 502, code="BadGateway.NothingListens") from error
    return _Stream(reader, writer)


class _Stream(httpcore.AsyncNetworkStream):
    """A connection into a session, as httpcore wants it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return await self._reader.read(min(max_bytes, _CHUNK))
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


async def pass_websocket(to: Destination, scope: Scope, receive: Receive, send: Send) -> None:
    """Connect to a WebSocket inside, and pass on what either side says.

    Raises:
        AgentBayError: There is none.
    """
    with _counted(to.session):
        inner = await _connect(to, scope)
        try:
            with suppress(OSError):  # the client has gone
                await _pass_both_ways(inner, *_noticed(to.session, receive, send))
        finally:
            await inner.close()


def _noticed(session: Session, receive: Receive, send: Send) -> tuple[Receive, Send]:
    """Have each message count as activity of the session: a connection alone is none."""

    async def take() -> MutableMapping[str, Any]:
        message = await receive()
        session.touch()
        return message

    async def give(message: MutableMapping[str, Any]) -> None:
        session.touch()
        await send(message)

    return take, give


async def _pass_both_ways(inner: ClientConnection, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.accept", "subprotocol": inner.subprotocol})
    ways = [asyncio.ensure_future(_inwards(inner, receive)), asyncio.ensure_future(_outwards(inner, send))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _connect(to: Destination, scope: Scope) -> ClientConnection:
    kept = _end_to_end(scope["headers"], _OURS)
    headers = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in kept
        if not name.startswith(b"sec-websocket-")
    ]
    try:
        made = await to.session.connect(to.port)
        return await connect(
            f"ws://127.0.0.1:{to.port}{to.target}",
            sock=made,
            subprotocols=[Subprotocol(name) for name in scope["subprotocols"]] or None,
            additional_headers=headers,
            user_agent_header=None,
            compression=None,
            open_timeout=_PATIENCE,
            ping_interval=None,
            close_timeout=1.0,
            max_size=_LARGEST_FRAME,
            logger=_SILENT,
            proxy=None,
        )
    except InvalidStatus as error:
        status = error.response.status_code
        raise ServerError(f"Port {to.port} answered with HTTP {status}.", status, code="BadGateway") from error
    except ConnectionRefusedError as error:
        message = f"Nothing listens on port {to.port} of the session."
        raise ServerError(message, 502, code="BadGateway.NothingListens") from error
    except (InvalidHandshake, WebSocketException, OSError, EOFError, ValueError) as error:
        raise _no_answer(to, type(error).__name__) from error


async def _inwards(inner: ClientConnection, receive: Receive) -> None:
    with suppress(ConnectionClosed):
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code") or 1000
                await inner.close(1000 if code in _UNSENDABLE else code, message.get("reason") or "")
                return
            text = message.get("text")
            await inner.send(text if text is not None else message.get("bytes") or b"")


async def _outwards(inner: ClientConnection, send: Send) -> None:
    try:
        while True:
            said = await inner.recv()
            await send({"type": "websocket.send", "text" if isinstance(said, str) else "bytes": said})
    except ConnectionClosed:
        code = inner.close_code or 1011
        code = 1011 if code == 1006 else 1000 if code in _UNSENDABLE else code
        await send({"type": "websocket.close", "code": code, "reason": inner.close_reason or ""})
