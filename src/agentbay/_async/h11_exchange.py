"""One request and its answer by h11, where their heads are not plain."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

import h11

from .._socket_backend import AsyncStream
from .._transport.connection_errors import Disconnected, Unreadable, WriteInterrupted
from .._transport.http_head import ResponseHead, join_headers
from .._transport.request import HttpRequest

_MAX_HEAD_BYTES = 100 << 10
_READ_BYTES = 64 << 10


class AsyncH11Exchange:
    """Write one request and read its answer, of any form that HTTP/1.1 has."""

    def __init__(self, stream: AsyncStream) -> None:
        self._stream = stream
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)

    async def write(self, outgoing: HttpRequest, content: AsyncIterable[bytes] | None, timeout: float | None) -> None:
        """Write a request, with a streamed body if there is one."""
        try:
            if content is None:
                await self._stream.write(self._encode_whole(outgoing), timeout)
                return
            await self._stream.write(self._encode(_head(outgoing)), timeout)
            async for part in content:
                await self._stream.write(self._encode(h11.Data(data=part)), timeout)
            await self._stream.write(self._encode(h11.EndOfMessage()), timeout)
        except WriteInterrupted:
            pass  # a service may refuse a large request while it is being sent, and says why before it hangs up
        except h11.LocalProtocolError as error:
            raise Unreadable(str(error)) from error

    def take_over(self, outgoing: HttpRequest, received: bytes) -> None:
        """Continue an exchange whose request was written without h11.

        Args:
            outgoing: The request.
            received: What came of its answer so far.
        """
        self._encode_whole(outgoing)
        self._receive_data(received)

    def _encode_whole(self, outgoing: HttpRequest) -> bytes:
        events = (_head(outgoing), h11.Data(data=outgoing.body), h11.EndOfMessage())
        return b"".join(map(self._encode, events))

    def _encode(self, event: Any) -> bytes:
        return self._protocol.send(event) or b""

    async def read_head(self, timeout: float | None) -> ResponseHead:
        """Return the head of the answer, after any that announce it."""
        while True:
            event = await self._next_event(timeout)
            if isinstance(event, h11.Response):
                fields = [(name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers]
                return ResponseHead(event.status_code, join_headers(fields))
            if not isinstance(event, h11.InformationalResponse):
                raise Disconnected("The service speaks another protocol than HTTP/1.1.")

    async def read_body(self, timeout: float | None) -> AsyncIterator[bytes]:
        """Yield the body of the answer as it comes."""
        while isinstance(event := await self._next_event(timeout), h11.Data):
            yield bytes(event.data)

    async def _next_event(self, timeout: float | None) -> Any:
        try:
            while (event := self._protocol.next_event()) is h11.NEED_DATA:
                data = await self._stream.read(_READ_BYTES, timeout)
                if not data and self._protocol.their_state is h11.SEND_RESPONSE:
                    raise Disconnected("Server disconnected without sending a response.")
                self._receive_data(data)
        except h11.RemoteProtocolError as error:
            raise Disconnected(str(error)) from error
        return event

    def _receive_data(self, data: bytes) -> None:
        try:
            self._protocol.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise Disconnected(str(error)) from error

    def is_complete(self) -> bool:
        """Return whether the exchange has ended and the connection stays open."""
        protocol = self._protocol
        return protocol.our_state is h11.DONE and protocol.their_state is h11.DONE and not protocol.trailing_data[0]


def _head(outgoing: HttpRequest) -> h11.Request:
    return h11.Request(method=outgoing.method, target=outgoing.target, headers=outgoing.headers)
