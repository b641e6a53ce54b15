"""The reverse proxy behind links: HTTP and WebSockets to ports inside sessions.

Bodies stream in both directions with back pressure: a side is read only as fast as the other side takes the data.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore

from agentbay.errors import ServerError, ServiceUnavailableError
from agentbay.local.fair_share import FairShare
from agentbay.local.headers import Headers
from agentbay.local.http.asgi import (
    ClientDisconnected,
    Receive,
    ResponseAborted,
    Scope,
    Send,
    iter_body,
    wait_for_disconnect,
)
from agentbay.local.http.port_headers import request_headers, response_headers
from agentbay.local.http.port_links import ProxyTarget
from agentbay.local.sandbox.service.frozen_clock import FrozenClock
from agentbay.local.sessions.session import Session

_MAX_REQUESTS_PER_SESSION = 256  # under way at a time
UPSTREAM_TIMEOUT_SECONDS = 10.0  # for a connection, and for a program to read what is sent to it
CHUNK_BYTES = 1 << 16
_SMALL_PIECE_BYTES, _PIECE_SECONDS = 1 << 12, 0.00005  # of an answer; seconds of processor time to pass one on
# What may precede an answer's head: answers such as 103 come in any number. It is read in small pieces, since all that
# are in one piece are parsed at once.
_MAX_HEAD_BYTES, _HEAD_CHUNK_BYTES = 1 << 17, 1 << 12
_HEAD_BYTE_SECONDS = 0.000002


async def proxy_request(target: ProxyTarget, scope: Scope, receive: Receive, send: Send) -> None:
    """Forward a request and stream the answer back.

    Raises:
        AgentBayError: The program in the session gave no answer.
        ClientDisconnected: The client disconnected.
        ResponseAborted: The program broke its answer off.
    """
    with limit_requests(target.session), target.session.using():
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
def limit_requests(session: Session) -> Iterator[None]:
    """Count a request to a port until the end of the block.

    Raises:
        ServiceUnavailableError: Too many are under way.
    """
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
        async for chunk in iter_body(self._receive):
            yield chunk
        self._read.set()

    async def wait_for_disconnect(self) -> None:
        """Return when the client has disconnected, which ASGI tells only after the body."""
        await self._read.wait()
        await wait_for_disconnect(self._receive)


async def _forward(target: ProxyTarget, scope: Scope, body: _RequestBody, send: Send) -> None:
    share = FairShare(target.session.hub.turns)
    stream = _SessionStream(*await open_connection(target), target.session.sandbox.clock, share)
    origin = httpcore.Origin(b"http", b"127.0.0.1", target.port)
    connection = httpcore.AsyncHTTP11Connection(origin, stream)
    path_and_query = target.path_and_query.encode("ascii")
    try:
        request = httpcore.Request(
            scope["method"],
            httpcore.URL(scheme=b"http", host=b"127.0.0.1", port=target.port, target=path_and_query),
            headers=_request_headers(target, scope, body),
            content=body if body.has_body else None,
            extensions={"timeout": {"write": UPSTREAM_TIMEOUT_SECONDS}},
        )
        try:
            response = await connection.handle_async_request(request)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise bad_gateway(target, str(error) or type(error).__name__) from error
        stream.has_head = True
        headers = response_headers(target, response.status, response.headers)
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        # An error from here on must break the answer off for the client too, or it would seem to be whole.
        async for chunk in response.aiter_stream():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if len(chunk) < _SMALL_PIECE_BYTES:
                share.add(_PIECE_SECONDS)
                await share.give_way()
        await send({"type": "http.response.body", "body": b""})
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        raise ResponseAborted from error
    finally:
        await stream.aclose()


def _request_headers(target: ProxyTarget, scope: Scope, body: _RequestBody) -> Headers:
    headers = [*request_headers(target, scope), (b"connection", b"close")]
    if body.chunked:
        headers.append((b"transfer-encoding", b"chunked"))
    elif body.has_body:
        headers += [(name, value) for name, value in scope["headers"] if name == b"content-length"]
    return headers


def bad_gateway(target: ProxyTarget, reason: str) -> ServerError:
    """Return the error for a program that did not answer as it should."""
    message = f"What listens on port {target.port} of the session gave no answer: {reason}."
    return ServerError(message, 502, code="BadGateway")


async def open_connection(target: ProxyTarget) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the port in the session.

    Raises:
        AgentBayError: Nothing listens there.
    """
    try:
        async with asyncio.timeout(UPSTREAM_TIMEOUT_SECONDS):
            with target.session.using() as sandbox:
                connected = await sandbox.connect(target.port)
            return await asyncio.open_connection(sock=connected)
    except (OSError, TimeoutError) as error:
        message = f"Nothing listens on port {target.port} of the session."
        raise ServerError(message, 502, code="BadGateway.NothingListens") from error


class _SessionStream(httpcore.AsyncNetworkStream):
    """A connection into a session, in the form that httpcore expects.

    Attributes:
        has_head: Whether the head of the answer was read.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, clock: FrozenClock, share: FairShare
    ) -> None:
        self._reader, self._writer, self._clock, self._share = reader, writer, clock, share
        self.has_head, self._head_bytes = False, 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            if self.has_head:
                return await self._reader.read(min(max_bytes, CHUNK_BYTES))
            return await self._read_head()
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    async def _read_head(self) -> bytes:
        await self._share.give_way()
        data = await self._reader.read(_HEAD_CHUNK_BYTES)
        self._head_bytes += len(data)
        if self._head_bytes > _MAX_HEAD_BYTES:
            raise httpcore.ReadError(f"there is no answer in its first {_MAX_HEAD_BYTES >> 10} KiB")
        if self._head_bytes > _HEAD_CHUNK_BYTES:  # more than honest programs send
            self._share.add(len(data) * _HEAD_BYTE_SECONDS)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._writer.write(buffer)
        draining = asyncio.ensure_future(self._writer.drain())
        try:
            # A program of a paused session cannot read, so that time does not count.
            if not await self._clock.ends_within(draining, timeout):
                raise httpcore.WriteTimeout(f"it read nothing of the request for {timeout:g} s")
            draining.result()
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error
        finally:
            draining.cancel()

    async def aclose(self) -> None:
        self._writer.transport.abort()

    def get_extra_info(self, info: str) -> Any:
        return None
