"""A connection pool that reuses the last connection first.

httpcore's own pool scans every connection for every request and hands one idle connection to several waiting requests,
which costs more than the request itself once a few dozen are under way. Its connections are used here as they are, and
one is never given to two requests.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, TypeAlias

import httpcore
import httpx

from .._concurrency import AsyncSemaphore
from .._socket_backend import AsyncDeadlineBackend

_KEEPALIVE_SECONDS = 55.0  # below the 60 s after which usual servers close idle connections
_DEFAULT_PORTS = {"http": 80, "https": 443}
Origin: TypeAlias = tuple[str, bytes, int]  # scheme, host, port
# The first entry that matches decides, so a base class stands after its subclasses.
_HTTPX_ERRORS: dict[type[Exception], type[httpx.RequestError]] = {
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.PoolTimeout: httpx.PoolTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.TimeoutException: httpx.TimeoutException,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.NetworkError: httpx.NetworkError,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
    httpcore.ProtocolError: httpx.ProtocolError,
    httpcore.UnsupportedProtocol: httpx.UnsupportedProtocol,
}
_HTTPCORE_ERRORS = tuple(_HTTPX_ERRORS)


class AsyncPooledConnection(NamedTuple):
    """A connection and the network backend that bounds its waits."""

    origin: Origin
    connection: httpcore.AsyncHTTPConnection
    network: AsyncDeadlineBackend


class AsyncConnectionPool(httpx.AsyncBaseTransport):
    """Keep-alive connections to any number of hosts, some in use at once.

    Args:
        ssl_context: Makes the TLS context.
        limit: How many calls may be under way at once.
        long_limit: How many more, of those that may take as long as a command does. They have slots of their own, so
            that a short call never waits for the end of a command.
        socket: A unix socket, by which the address `http://localhost` is reached; "" for none.

    The request's extensions may hold `deadline`, the moment on the monotonic clock at which every wait for it ends, and
    `extend`, which is asked for a later one when a wait for the answer has reached it. A call with it is a long one.
    """

    def __init__(
        self, ssl_context: Callable[[], ssl.SSLContext], limit: int, long_limit: int, socket: str = ""
    ) -> None:
        self._ssl_context = ssl_context
        self._socket = socket
        self._limits = {False: limit, True: long_limit}
        self._slots = {is_long: AsyncSemaphore(count) for is_long, count in self._limits.items()}
        self._idle: dict[Origin, list[AsyncPooledConnection]] = {}
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request over an idle connection or a new one."""
        # The semaphore bounds the connections in use. Every path below must give the slot back by `checkin`, exactly
        # once.
        is_long = request.extensions.get("extend") is not None
        slots = self._slots[is_long]
        if not await slots.acquire(request.extensions["timeout"].get("pool")):
            raise httpx.PoolTimeout(f"all {self._limits[is_long]} connections were in use", request=request)
        kept: AsyncPooledConnection | None = None
        try:
            kept = await self._checkout(request.url)
            response = await self._send(kept, request)
        except _HTTPCORE_ERRORS as error:
            await self.checkin(kept, slots, reuse=False)
            raise to_httpx_error(error, request) from error
        # A cancellation leaves a half-written request or a half-read answer behind, so the connection cannot be reused.
        except BaseException:
            await self.checkin(kept, slots, reuse=False)
            raise
        body = AsyncResponseBody(self, kept, slots, response, request)
        return httpx.Response(response.status, headers=response.headers, stream=body, extensions=response.extensions)

    async def _send(self, kept: AsyncPooledConnection, request: httpx.Request) -> httpcore.Response:
        url, extensions = request.url, request.extensions
        # A pooled connection still has the limits of its last request.
        kept.network.deadline_at = extensions.get("deadline", math.inf)
        kept.network.extend = extensions.get("extend")
        scheme, host, port = kept.origin
        target = extensions.get("target", url.raw_path)
        core = httpcore.Request(
            request.method,
            httpcore.URL(scheme=scheme.encode(), host=host, port=port, target=target),
            headers=request.headers.raw,
            content=request.stream,
            extensions={"timeout": extensions["timeout"]},
        )
        return await kept.connection.handle_async_request(core)

    async def _checkout(self, url: httpx.URL) -> AsyncPooledConnection:
        # httpx would refuse these itself, but this transport is also called without an httpx client.
        if url.scheme not in _DEFAULT_PORTS or not url.raw_host or (url.port or 0) >= 1 << 16:
            raise httpcore.UnsupportedProtocol("the address is not http:// or https://, a host and perhaps a port")
        origin = url.scheme, url.raw_host, url.port or _DEFAULT_PORTS[url.scheme]
        while (kept := self._pop_idle(origin)) is not None:
            # The server may have closed an idle connection. Sending on it would fail in a way that looks like a lost
            # answer, which only idempotent calls may repeat.
            if kept.connection.is_available() and not kept.connection.has_expired():
                return kept
            await kept.connection.aclose()
        scheme, host, port = origin
        network = AsyncDeadlineBackend(self._socket if is_local_socket(url) else "")
        connection = httpcore.AsyncHTTPConnection(
            httpcore.Origin(scheme.encode(), host, port),
            ssl_context=self._ssl_context() if scheme == "https" else None,
            keepalive_expiry=_KEEPALIVE_SECONDS,
            network_backend=network,
        )
        return AsyncPooledConnection(origin, connection, network)

    def _pop_idle(self, origin: Origin) -> AsyncPooledConnection | None:
        try:
            # `pop` is atomic, so two threads never get the same connection and no lock is needed. The newest one comes
            # first, so that superfluous ones grow old and expire.
            return self._idle[origin].pop()
        except LookupError:  # none, or another thread took it (a race)
            return None

    async def checkin(self, kept: AsyncPooledConnection | None, slots: AsyncSemaphore, *, reuse: bool) -> None:
        """Keep a connection for the next request, or close it.

        Its slot is given back.
        """
        try:
            if kept is None:
                return
            stack = self._idle.setdefault(kept.origin, [])
            # A connection is idle only when its answer was read to the end. Otherwise the rest of that answer would be
            # taken for the answer to the next request.
            if reuse and kept.connection.is_idle() and not self._closed and len(stack) < self._limits[False]:
                stack.append(kept)
            else:
                await kept.connection.aclose()
        finally:
            slots.release()

    async def aclose(self) -> None:
        """Close every idle connection.

        Those in use close when their response is closed.
        """
        self._closed = True
        for origin in list(self._idle):
            while (kept := self._pop_idle(origin)) is not None:
                await kept.connection.aclose()


class AsyncResponseBody(httpx.AsyncByteStream):
    """The body of a response, which returns its connection when closed."""

    def __init__(
        self,
        pool: AsyncConnectionPool,
        kept: AsyncPooledConnection,
        slots: AsyncSemaphore,
        response: httpcore.Response,
        request: httpx.Request,
    ) -> None:
        self._pool, self._slots, self._response, self._request = pool, slots, response, request
        self._connection: AsyncPooledConnection | None = kept

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._response.aiter_stream():
                yield part
        except _HTTPCORE_ERRORS as error:
            raise to_httpx_error(error, self._request) from error

    async def aclose(self) -> None:
        """Return the connection to the pool.

        Calling it again does nothing.
        """
        # Taken out before the first wait, so that a second close, even a concurrent one, cannot release the slot twice.
        kept, self._connection = self._connection, None
        if kept is None:
            return
        reuse = False
        try:
            await self._response.aclose()
            reuse = True
        finally:
            await self._pool.checkin(kept, self._slots, reuse=reuse)


def is_local_socket(url: httpx.URL) -> bool:
    """Return whether the URL is that of a runtime behind a unix socket."""
    return url.scheme in ("http", "ws") and url.host == "localhost" and url.port is None


def to_httpx_error(error: Exception, request: httpx.Request) -> httpx.RequestError:
    """Return the httpx error that corresponds to an httpcore error."""
    kind = next(kind for core, kind in _HTTPX_ERRORS.items() if isinstance(error, core))
    return kind(str(error) or type(error).__name__, request=request)
