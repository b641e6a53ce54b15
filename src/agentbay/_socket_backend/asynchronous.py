"""Asynchronous sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING, Any, cast

from .._transport.connection_errors import Disconnected, NothingSent, WaitTimedOut, WriteInterrupted
from .deadline import CONNECT_ERRORS, NOT_SENT_MESSAGE, DeadlineNetwork, is_readable

if TYPE_CHECKING:
    import ssl

_HIGH_WATER_BYTES = 1 << 20  # back pressure: reading pauses when so many bytes are unread


class AsyncNetwork(DeadlineNetwork):
    """Sockets on asyncio's own transports, without a portability layer."""

    async def connect(self, host: str, port: int, timeout: float | None) -> AsyncStream:
        """Connect to a host."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.remaining(timeout)):
                if self.socket_path:
                    return await self._connect_unix(loop)
                _, stream = await loop.create_connection(
                    lambda: AsyncStream(self), host, port, **_happy_eyeballs_options(loop, host)
                )
        except TimeoutError as error:
            raise NothingSent(f"no connection to {self.socket_path or f'{host}:{port}'} in time") from error
        except CONNECT_ERRORS as error:
            raise NothingSent(str(error)) from error
        return stream

    async def _connect_unix(self, loop: asyncio.AbstractEventLoop) -> AsyncStream:
        try:
            _, stream = await loop.create_unix_connection(lambda: AsyncStream(self), self.socket_path)
        except OSError as error:
            raise NothingSent(f"{self.socket_path}: {error.strerror}") from error
        return stream

    async def extend_deadline(self) -> bool:
        """Return whether a wait may go on beyond its deadline, which has then moved."""
        if self.extend is not None:
            self.deadline_at = await self.extend()
        return self.extend is not None and self.deadline_at > time.monotonic()


def _happy_eyeballs_options(loop: asyncio.AbstractEventLoop, host: str) -> dict[str, Any]:
    """Enable Happy Eyeballs: try a host's addresses in parallel, 0.25 s apart.

    Only asyncio's own loop can. A numeric address has no alternative, and the race may leak a socket when cancelled.
    """
    is_address = ":" in host or host.replace(".", "").isdigit()
    return {} if is_address or not isinstance(loop, asyncio.BaseEventLoop) else {"happy_eyeballs_delay": 0.25}


class AsyncStream(asyncio.Protocol):
    """One connection: its receive buffer and its waiters."""

    def __init__(self, network: AsyncNetwork) -> None:
        self._network = network
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made, start_tls
        self._buffer = bytearray()
        self._is_reading_paused = False
        self._is_eof = False
        self._error: Exception | None = None
        self._is_write_incomplete = False
        self._read_waiter: asyncio.Future[None] | None = None
        self._drain_waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # no subclass of it on uvloop
        # So that the drain waiter is there exactly while something is unsent, also when the connection is lost.
        self._transport.set_write_buffer_limits(high=1, low=0)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > _HIGH_WATER_BYTES and not self._is_reading_paused:
            self._is_reading_paused = True
            self._transport.pause_reading()
        _resolve_waiter(self._read_waiter)

    def eof_received(self) -> bool:
        # Returning False closes the transport: a server that has ended its side answers no further request.
        self._is_eof = True
        _resolve_waiter(self._read_waiter)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._error = exc
        # What is unsent has not left this process, so the service cannot have executed the request. The transport does
        # not say how much it is any more: a lost connection has emptied its buffer.
        self._is_write_incomplete = self._is_write_incomplete or self._drain_waiter is not None
        self.eof_received()
        _resolve_waiter(self._drain_waiter)

    def pause_writing(self) -> None:
        self._drain_waiter = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        _resolve_waiter(self._drain_waiter)
        self._drain_waiter = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        while True:
            try:
                return await self._read_once(max_bytes, timeout)
            except WaitTimedOut:
                if not await self._network.extend_deadline():
                    raise

    async def _read_once(self, max_bytes: int, timeout: float | None) -> bytes:
        if self._network.remaining(timeout) == 0:  # steady data would never make it wait, and so never end it
            raise WaitTimedOut("too late")
        if not self._buffer and not self._is_eof:
            self._read_waiter = asyncio.get_running_loop().create_future()
            try:
                await _wait_with_timeout(self._read_waiter, self._network.remaining(timeout), WaitTimedOut)
            finally:
                self._read_waiter = None
        if not self._buffer and self._is_write_incomplete:
            raise NothingSent(NOT_SENT_MESSAGE)
        if not self._buffer and self._error is not None:
            raise Disconnected(str(self._error)) from self._error
        data = bytes(self._buffer[:max_bytes])
        del self._buffer[:max_bytes]
        # Resume at half the limit (hysteresis), so that reading does not stop and start with every block.
        if self._is_reading_paused and len(self._buffer) <= _HIGH_WATER_BYTES // 2:
            self._is_reading_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        if not self._transport.is_closing():
            self._transport.write(buffer)
        if self._transport.is_closing():  # before the write, or by it
            self._is_write_incomplete = True
            raise WriteInterrupted(NOT_SENT_MESSAGE)
        if self._drain_waiter is not None:
            await _wait_with_timeout(self._drain_waiter, self._network.remaining(timeout), WaitTimedOut)

    async def aclose(self) -> None:
        self._transport.abort()

    async def start_tls(self, tls: ssl.SSLContext, host: str, timeout: float | None) -> AsyncStream:
        loop = asyncio.get_running_loop()
        secured = AsyncStream(self._network)
        secured._transport = self._transport  # until the handshake is done, or fails
        try:
            async with asyncio.timeout(self._network.remaining(timeout)):
                transport = await loop.start_tls(self._transport, secured, tls, server_hostname=host)
        except TimeoutError as error:
            self._transport.abort()
            raise NothingSent("no TLS handshake in time") from error
        except CONNECT_ERRORS as error:  # ssl.SSLError is an OSError
            self._transport.abort()
            raise NothingSent(str(error)) from error
        assert transport is not None
        # loop.start_tls does not call it for the new protocol.
        secured.connection_made(transport)
        return secured

    def is_readable(self) -> bool:
        """Return whether something came, or the end.

        An idle connection that is readable was closed by the service.
        """
        return self._is_eof or bool(self._buffer) or is_readable(self._transport.get_extra_info("socket"))


def _resolve_waiter(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _time_out_waiter(waiter: asyncio.Future[None], late: type[Exception]) -> None:
    if not waiter.done():
        waiter.set_exception(late("too late"))


async def _wait_with_timeout(waiter: asyncio.Future[None], timeout: float | None, late: type[Exception]) -> None:
    if timeout is None:
        await waiter
        return
    timer = waiter.get_loop().call_later(timeout, _time_out_waiter, waiter, late)
    try:
        await waiter
    finally:
        timer.cancel()
