"""A connection pool that reuses the last connection first.

httpcore's pool scans every connection for every request and hands one idle connection to several waiting requests,
which costs more than the request itself once a few dozen are under way. Here one is never given to two requests.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

import httpx

from .._concurrency import AsyncSemaphore
from .._socket_backend import AsyncNetwork
from .http_connection import AsyncHttpConnection

_DEFAULT_PORTS = {"http": 80, "https": 443}
Origin: TypeAlias = tuple[str, str, int]  # scheme, host, port


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
        self._idle: dict[Origin, list[AsyncHttpConnection]] = {}
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request over an idle connection or a new one."""
        # The semaphore bounds the connections in use. Every path below must give the slot back by `checkin`, exactly
        # once.
        origin, kept = _read_origin(request.url), None
        is_long = request.extensions.get("extend") is not None
        slots = self._slots[is_long]
        if not await slots.acquire(request.extensions["timeout"].get("pool")):
            raise httpx.PoolTimeout(f"all {self._limits[is_long]} connections were in use", request=request)
        try:
            kept = await self._checkout(origin, is_local_socket(request.url))
            # A pooled connection still has the limits of its last request.
            kept.network.deadline_at = request.extensions.get("deadline", math.inf)
            kept.network.extend = request.extensions.get("extend")
            head = await kept.send(request, request.extensions.get("target", request.url.raw_path))
        # Also a cancellation leaves a half-written request or a half-read answer behind, so the connection cannot be
        # reused.
        except BaseException:
            await self.checkin(origin, kept, slots, reuse=False)
            raise
        body = AsyncResponseBody(self, origin, kept, slots, request.extensions["timeout"].get("read"))
        reason = {"reason_phrase": head.reason, "http_version": b"HTTP/" + head.http_version}
        return httpx.Response(head.status_code, headers=head.headers.raw_items(), stream=body, extensions=reason)

    async def _checkout(self, origin: Origin, is_local: bool) -> AsyncHttpConnection:
        while (kept := self._pop_idle(origin)) is not None:
            # The server may have closed an idle connection. Sending on it would fail in a way that looks like a lost
            # answer, which only idempotent calls may repeat.
            if kept.is_usable():
                return kept
            await kept.aclose()
        scheme, host, port = origin
        network = AsyncNetwork(self._socket if is_local else "")
        return AsyncHttpConnection(network, host, port, self._ssl_context() if scheme == "https" else None)

    def _pop_idle(self, origin: Origin) -> AsyncHttpConnection | None:
        try:
            # `pop` is atomic, so two threads never get the same connection and no lock is needed. The newest one comes
            # first, so that superfluous ones grow old and expire.
            return self._idle[origin].pop()
        except LookupError:  # none, or another thread took it (a race)
            return None

    async def checkin(
        self, origin: Origin, kept: AsyncHttpConnection | None, slots: AsyncSemaphore, *, reuse: bool
    ) -> None:
        """Keep a connection for the next request, or close it.

        Its slot is given back.
        """
        try:
            if kept is None:
                return
            stack = self._idle.setdefault(origin, [])
            if reuse and kept.finish() and not self._closed and len(stack) < self._limits[False]:
                stack.append(kept)
            else:
                await kept.aclose()
        finally:
            slots.release()

    async def aclose(self) -> None:
        """Close every idle connection.

        Those in use close when their response is closed.
        """
        self._closed = True
        for origin in list(self._idle):
            while (kept := self._pop_idle(origin)) is not None:
                await kept.aclose()


class AsyncResponseBody(httpx.AsyncByteStream):
    """The body of a response, which returns its connection when closed."""

    def __init__(
        self,
        pool: AsyncConnectionPool,
        origin: Origin,
        kept: AsyncHttpConnection,
        slots: AsyncSemaphore,
        timeout: float | None,
    ) -> None:
        self._pool, self._origin, self._slots, self._timeout = pool, origin, slots, timeout
        self._connection: AsyncHttpConnection | None = kept

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._connection is not None:
            async for part in self._connection.read_body(self._timeout):
                yield part

    async def aclose(self) -> None:
        """Return the connection to the pool.

        Calling it again does nothing.
        """
        # Taken out before the first wait, so that a second close, even a concurrent one, cannot release the slot twice.
        kept, self._connection = self._connection, None
        if kept is not None:
            await self._pool.checkin(self._origin, kept, self._slots, reuse=True)


def _read_origin(url: httpx.URL) -> Origin:
    # httpx would refuse these itself, but this transport is also called without an httpx client.
    if url.scheme not in _DEFAULT_PORTS or not url.raw_host or (url.port or 0) >= 1 << 16:
        raise httpx.UnsupportedProtocol("the address is not http:// or https://, a host and perhaps a port")
    return url.scheme, url.raw_host.decode("ascii"), url.port or _DEFAULT_PORTS[url.scheme]


def is_local_socket(url: httpx.URL) -> bool:
    """Return whether the URL is that of a runtime behind a unix socket."""
    return url.scheme in ("http", "ws") and url.host == "localhost" and url.port is None
