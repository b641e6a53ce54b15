"""One HTTP/1.1 connection: a socket, and the exchange that is under way on it."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import TYPE_CHECKING

from .._socket_backend import AsyncNetwork, AsyncStream
from .._transport.connection_errors import Disconnected, WriteInterrupted
from .._transport.http_head import ResponseHead, read_plain_head, write_plain_request
from .._transport.request import HttpRequest

if TYPE_CHECKING:
    import ssl

    from .h11_exchange import AsyncH11Exchange

_KEEPALIVE_SECONDS = 55.0  # below the 60 s after which usual servers close idle connections
_MAX_HEAD_BYTES = 64 << 10  # of a plain head; h11 reads a larger one, up to its own limit
_READ_BYTES = 64 << 10  # in one call
_BODY_READ_BYTES = 16 << 10  # of a body that is joined: for larger pieces the allocator asks for fresh pages each time
_LARGE_READ_BYTES = 256 << 10  # of one that is larger than
_LARGE_BODY_BYTES = 4 << 20
_END_OF_HEAD = re.compile(rb"\n\r?\n")


class AsyncHttpConnection:
    """A connection to one host, for one request at a time.

    Args:
        network: Opens its socket, and applies the deadline to every read and write.
        host: The host.
        port: Its port.
        tls: How to encrypt, or None for plain HTTP.
    """

    def __init__(self, network: AsyncNetwork, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self.network = network
        self._host, self._port, self._tls = host, port, tls
        self._stream: AsyncStream | None = None
        self._exchange: AsyncPlainExchange | AsyncH11Exchange | None = None
        self._expires_at = 0.0

    async def send(
        self, outgoing: HttpRequest, content: AsyncIterable[bytes] | None, timeouts: Mapping[str, float | None]
    ) -> ResponseHead:
        """Send a request and return the head of its answer.

        Args:
            outgoing: The request.
            content: Its body, if that is not the request's own.
            timeouts: Seconds that a wait may take, for `connect`, `read` and `write`.

        Raises:
            NothingSent: It may be sent again.
            WaitTimedOut: A limit was reached.
            Disconnected: The connection broke.
            Unreadable: The request cannot be written.
        """
        if self._stream is None:
            self._stream = await self._connect(timeouts["connect"])
        request = write_plain_request(outgoing) if content is None else None
        if request is None:
            exchange = self._use_h11(self._stream)
            await exchange.write(outgoing, content, timeouts["write"])
            return await exchange.read_head(timeouts["read"])
        plain = self._exchange = AsyncPlainExchange(self._stream)
        await plain.write(request, timeouts["write"])
        if (head := await plain.read_head(timeouts["read"])) is not None:
            return head
        exchange = self._use_h11(self._stream)
        exchange.take_over(outgoing, plain.received)
        return await exchange.read_head(timeouts["read"])

    def _use_h11(self, stream: AsyncStream) -> AsyncH11Exchange:
        from .h11_exchange import AsyncH11Exchange  # imported when it is needed, which it is for few services

        self._exchange = exchange = AsyncH11Exchange(stream)
        return exchange

    async def _connect(self, timeout: float | None) -> AsyncStream:
        stream = await self.network.connect(self._host, self._port, timeout)
        if self._tls is None:
            return stream
        return await stream.start_tls(self._tls, self._host, timeout)

    def read_body(self, timeout: float | None) -> AsyncIterator[bytes]:
        """Yield the body of the answer as it comes."""
        assert self._exchange is not None
        return self._exchange.read_body(timeout)

    def prepare_for_reuse(self) -> bool:
        """Make the connection ready for another request, or return False.

        It cannot be reused if an answer was not read to its end: the rest would be taken for the next one.
        """
        exchange, self._exchange = self._exchange, None
        self._expires_at = time.monotonic() + _KEEPALIVE_SECONDS
        return exchange is not None and exchange.is_complete()

    def is_usable(self) -> bool:
        """Return whether an idle connection is still open and has not expired."""
        is_old = time.monotonic() > self._expires_at
        return self._stream is not None and not is_old and not self._stream.is_readable()

    async def aclose(self) -> None:
        """Close the socket, whatever is under way."""
        if self._stream is not None:
            await self._stream.aclose()


class AsyncPlainExchange:
    """Write one request and read its answer, if their heads are plain.

    Attributes:
        received: What was read of the answer's head, or what came with it of the body.
    """

    def __init__(self, stream: AsyncStream) -> None:
        self._stream = stream
        self._is_written = False
        self._body_bytes_left = 0
        self.received = b""

    async def write(self, request: bytes, timeout: float | None) -> None:
        """Write a request, head and body in one system call."""
        try:
            await self._stream.write(request, timeout)
            self._is_written = True
        except WriteInterrupted:
            pass  # a service may refuse a large request while it is being sent, and says why before it hangs up

    async def read_head(self, timeout: float | None) -> ResponseHead | None:
        """Return the head of the answer, or None if it is not plain."""
        while (end := _END_OF_HEAD.search(self.received)) is None:
            data = await self._stream.read(_READ_BYTES, timeout)
            if not data and not self.received:
                raise Disconnected("Server disconnected without sending a response.")
            self.received += data
            if not data or len(self.received) > _MAX_HEAD_BYTES:
                return None
        found = read_plain_head(self.received[: end.end()])
        if found is None:
            return None
        head, self._body_bytes_left = found
        self.received = self.received[end.end() :]
        return head

    async def read_body(self, timeout: float | None) -> AsyncIterator[bytes]:
        """Yield the body of the answer as it comes."""
        data, self.received = self.received[: self._body_bytes_left], self.received[self._body_bytes_left :]
        most = _LARGE_READ_BYTES if self._body_bytes_left > _LARGE_BODY_BYTES else _BODY_READ_BYTES
        while True:
            self._body_bytes_left -= len(data)
            if data:
                yield data
            if not self._body_bytes_left:
                return
            data = await self._stream.read(min(self._body_bytes_left, most), timeout)
            if not data:
                raise Disconnected("The server closed the connection before the end of its answer.")

    def is_complete(self) -> bool:
        """Return whether both sides have sent all, and nothing came after it."""
        return self._is_written and not self._body_bytes_left and not self.received
