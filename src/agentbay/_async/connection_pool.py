"""A connection pool that reuses the last connection first.

httpcore's pool scans every connection for every request and hands one idle connection to several waiting requests,
which costs more than the request itself once a few dozen are under way. This pool never gives one connection to two
requests.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING

from .._concurrency import AsyncCallable, AsyncSemaphore
from .._socket_backend import AsyncNetwork
from .._transport.addresses import Address, read_address
from .._transport.connection_errors import NothingSent, PoolExhausted
from .._transport.http_head import ResponseHead
from .._transport.request import HttpRequest
from .http_connection import AsyncHttpConnection

if TYPE_CHECKING:
    import ssl

_DEFAULT_PORTS = {"http": 80, "https": 443}


class AsyncConnectionPool:
    """Keep-alive connections to any number of hosts, with a limit on those in use.

    Args:
        ssl_context: Makes the TLS context.
        limit: How many calls may be under way at once.
        long_limit: How many more, of those that may take as long as a command or a file does. They have slots of their
            own, so that a short call never waits for the end of a long one.
        socket: A unix socket, by which the address `http://localhost` is reached; "" for none.
    """

    def __init__(
        self, ssl_context: Callable[[], ssl.SSLContext], limit: int, long_limit: int, socket: str = ""
    ) -> None:
        self._ssl_context = ssl_context
        self._socket = socket
        self._limits = {False: limit, True: long_limit}
        self._slots = {is_long: AsyncSemaphore(count) for is_long, count in self._limits.items()}
        self._idle: dict[Address, list[AsyncHttpConnection]] = {}
        self._closed = False

    async def send(
        self,
        outgoing: HttpRequest,
        timeouts: Mapping[str, float | None],
        deadline_at: float,
        content: AsyncIterable[bytes] | None = None,
        extend_deadline: AsyncCallable[float] | None = None,
        is_long: bool = False,
    ) -> AsyncPoolResponse:
        """Send a request, and return its unread answer.

        Args:
            outgoing: The request.
            timeouts: Seconds that a wait may take, for `pool`, `connect`, `read` and `write`.
            deadline_at: The moment on the monotonic clock at which every wait ends.
            content: The request's body, if that is streamed.
            extend_deadline: Called when a wait for the answer reaches the deadline, and returns a later one.
            is_long: Whether it uses the slots for long calls.

        Raises:
            NothingSent: It may be sent again. As `PoolExhausted`, all connections were in use.
            WaitTimedOut: A limit was reached.
            Disconnected: The connection broke.
            Unreadable: The request cannot be written.
        """
        origin, kept = _read_origin(outgoing.url), None
        # The semaphore bounds the connections in use. Every path below must give the slot back by `checkin`, exactly
        # once.
        slots = self._slots[is_long]
        if not await slots.acquire(timeouts["pool"]):
            kind = "connections for commands and transfers" if is_long else "connections"
            raise PoolExhausted(f"all {self._limits[is_long]} {kind} of this client were in use")
        try:
            kept = await self._checkout(origin)
            # A pooled connection still has the limits of its last request.
            kept.network.deadline_at, kept.network.extend = deadline_at, extend_deadline
            head = await kept.send(outgoing, content, timeouts)
        # Also a cancellation leaves a half-written request or a half-read answer behind, so the connection cannot be
        # reused.
        except BaseException:
            await self.checkin(origin, kept, slots, reuse=False)
            raise
        return AsyncPoolResponse(self, origin, kept, slots, head, timeouts["read"])

    async def _checkout(self, origin: Address) -> AsyncHttpConnection:
        while (kept := self._pop_idle(origin)) is not None:
            # The server may have closed an idle connection. Sending on it would fail in a way that looks like a lost
            # answer, which only idempotent calls may repeat.
            if kept.is_usable():
                return kept
            await kept.aclose()
        network = AsyncNetwork(self._socket if origin.is_local_socket else "")
        tls = self._ssl_context() if origin.scheme == "https" else None
        return AsyncHttpConnection(network, origin.host, origin.port or _DEFAULT_PORTS[origin.scheme], tls)

    def _pop_idle(self, origin: Address) -> AsyncHttpConnection | None:
        try:
            # `pop` is atomic, so two threads never get the same connection and no lock is needed. The newest one comes
            # first, so that superfluous ones grow old and expire.
            return self._idle[origin].pop()
        except LookupError:  # none, or another thread took it (a race)
            return None

    async def checkin(
        self, origin: Address, kept: AsyncHttpConnection | None, slots: AsyncSemaphore, *, reuse: bool
    ) -> None:
        """Return a connection and its slot."""
        try:
            if kept is None:
                return
            stack = self._idle.setdefault(origin, [])
            if reuse and kept.prepare_for_reuse() and not self._closed and len(stack) < self._limits[False]:
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


class AsyncPoolResponse:
    """An unread answer, which returns its connection when closed.

    It has the attributes of an httpx response, so that callers can use either.
    """

    def __init__(
        self,
        pool: AsyncConnectionPool,
        origin: Address,
        kept: AsyncHttpConnection,
        slots: AsyncSemaphore,
        head: ResponseHead,
        timeout: float | None,
    ) -> None:
        self.status_code, self.headers = head
        self._pool, self._origin, self._slots, self._timeout = pool, origin, slots, timeout
        self._connection: AsyncHttpConnection | None = kept

    async def aiter_raw(self, chunk_size: int = 0) -> AsyncIterator[bytes]:
        """Yield the body as it comes, or in blocks of `chunk_size` bytes."""
        assert self._connection is not None
        gathered: list[bytes] = []
        size = 0
        async for part in self._connection.read_body(self._timeout):
            gathered.append(part)
            size += len(part)
            if size >= chunk_size:
                data = b"".join(gathered)
                end = size - size % chunk_size if chunk_size else size
                yield data[:end]
                gathered, size = [data[end:]], size - end
        if size:
            yield b"".join(gathered)

    async def aclose(self) -> None:
        """Return the connection to the pool.

        Calling it again does nothing.
        """
        # Taken out before the first wait, so that a second close, even a concurrent one, cannot release the slot twice.
        kept, self._connection = self._connection, None
        if kept is not None:
            await self._pool.checkin(self._origin, kept, self._slots, reuse=True)


def _read_origin(url: str) -> Address:
    address = read_address(url)
    if address.scheme not in _DEFAULT_PORTS or not address.host:
        raise NothingSent("the address is not http:// or https://, a host and perhaps a port")
    return address
