"""One HTTP/1.1 connection: a socket, and h11, which writes requests and reads answers."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Any

import h11

from .._socket_backend import AsyncNetwork, AsyncStream
from .._transport.connection_errors import Disconnected, Unreadable, WriteInterrupted
from .._transport.request import HttpRequest

_KEEPALIVE_SECONDS = 55.0  # below the 60 s after which usual servers close idle connections
_MAX_HEAD_BYTES = 100 << 10
_READ_BYTES = 64 << 10
_FRAMING_HEADERS = (b"connection", b"content-length", b"transfer-encoding")
_LARGE_READ_BYTES = 256 << 10  # of a large body


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
        self._protocol = _make_protocol()
        self._body_bytes_left = 0  # of the answer; 0 or less if it is not known
        self._is_between_requests = False  # without h11's knowledge
        self._expires_at = 0.0

    async def send(
        self, outgoing: HttpRequest, content: AsyncIterable[bytes] | None, timeouts: Mapping[str, float | None]
    ) -> h11.Response:
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
        try:
            await self._write(self._stream, outgoing, content, timeouts["write"])
        except WriteInterrupted:
            pass  # a service may refuse a large request while it is being sent, and says why before it hangs up
        while True:
            event = await self._receive(timeouts["read"])
            if isinstance(event, h11.Response):
                self._body_bytes_left = _known_length(event)
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise Disconnected("The service speaks another protocol than HTTP/1.1.")

    async def _connect(self, timeout: float | None) -> AsyncStream:
        stream = await self.network.connect(self._host, self._port, timeout)
        if self._tls is None:
            return stream
        return await stream.start_tls(self._tls, self._host, timeout)

    async def _write(
        self, stream: AsyncStream, outgoing: HttpRequest, content: AsyncIterable[bytes] | None, timeout: float | None
    ) -> None:
        try:
            data = self._encode(h11.Request(method=outgoing.method, target=outgoing.target, headers=outgoing.headers))
            if content is None:
                # Written together with the head, in one system call.
                data += self._encode(h11.Data(data=outgoing.body))
            else:
                await stream.write(data, timeout)
                data = b""
                async for part in content:
                    await stream.write(self._encode(h11.Data(data=part)), timeout)
            await stream.write(data + self._encode(h11.EndOfMessage()), timeout)
        except h11.LocalProtocolError as error:
            raise Unreadable(str(error)) from error

    def _encode(self, event: Any) -> bytes:
        return self._protocol.send(event) or b""

    async def _receive(self, timeout: float | None) -> Any:
        """Return the next event of the answer."""
        assert self._stream is not None
        try:
            while (event := self._protocol.next_event()) is h11.NEED_DATA:
                data = await self._stream.read(_READ_BYTES, timeout)
                if not data and self._protocol.their_state is h11.SEND_RESPONSE:
                    raise Disconnected("Server disconnected without sending a response.")
                self._protocol.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise Disconnected(str(error)) from error
        return event

    async def read_body(self, timeout: float | None) -> AsyncIterator[bytes]:
        """Yield the body of the answer as it comes."""
        while isinstance(event := await self._receive(timeout), h11.Data):
            yield bytes(event.data)
            # h11 had no more than this. The rest of a large body needs no parser, which would copy it three times.
            self._body_bytes_left -= len(event.data)
            if self._body_bytes_left > _READ_BYTES:
                async for data in self._read_rest(timeout):
                    yield data
                return

    async def _read_rest(self, timeout: float | None) -> AsyncIterator[bytes]:
        assert self._stream is not None
        while self._body_bytes_left:
            data = await self._stream.read(min(self._body_bytes_left, _LARGE_READ_BYTES), timeout)
            if not data:
                raise Disconnected("The server closed the connection before the end of its answer.")
            self._body_bytes_left -= len(data)
            yield data
        if self._protocol.our_state is h11.DONE:  # the whole request was sent, and now the whole answer was read
            self._protocol = _make_protocol()
            self._is_between_requests = True

    def prepare_for_reuse(self) -> bool:
        """Make the connection ready for another request, or return False.

        It cannot be reused if an answer was not read to its end: the rest would be taken for the next one.
        """
        protocol = self._protocol
        if self._is_between_requests:
            self._is_between_requests = False
        elif protocol.our_state is not h11.DONE or protocol.their_state is not h11.DONE or protocol.trailing_data[0]:
            return False
        else:
            protocol.start_next_cycle()
        self._expires_at = time.monotonic() + _KEEPALIVE_SECONDS
        return True

    def is_usable(self) -> bool:
        """Return whether an idle connection is still open and has not expired."""
        is_old = time.monotonic() > self._expires_at
        return self._stream is not None and not is_old and not self._stream.is_readable()

    async def aclose(self) -> None:
        """Close the socket, whatever is under way."""
        if self._stream is not None:
            await self._stream.aclose()


def _make_protocol() -> h11.Connection:
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)


def _known_length(head: h11.Response) -> int:
    """Return the length of a body whose end h11 need not find, or 0."""
    headers = {name: value for name, value in head.headers if name in _FRAMING_HEADERS}
    if head.http_version != b"1.1" or head.status_code != 200 or headers.keys() != {b"content-length"}:
        return 0
    return int(headers[b"content-length"])
