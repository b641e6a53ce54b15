"""Blocking sockets."""

from __future__ import annotations

import math
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any

import httpcore

from .deadline import CONNECT_ERRORS, NOT_SENT_MESSAGE, DeadlineBackend, is_readable


class SyncDeadlineBackend(DeadlineBackend, httpcore.NetworkBackend):
    """Blocking sockets."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to a host, trying its addresses in turn."""
        until = time.monotonic() + (math.inf if timeout is None else timeout)
        keepalive = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
        if self.socket_path:
            return self._connect_unix(timeout)
        failure: Exception | None = None
        # socket.create_connection would grant each address the whole timeout anew, and so pass the deadline.
        for address in _resolve_addresses(host, port):
            left = self.remaining(until - time.monotonic())
            if left is not None and left <= 0:
                raise httpcore.ConnectTimeout(f"no connection to {host}:{port} in time") from failure
            try:
                seconds = None if left == math.inf else left
                stream = httpcore.SyncBackend().connect_tcp(address, port, seconds, local_address, keepalive)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _SyncStream(self, stream)
        raise failure or httpcore.ConnectError(f"{host} has no address")

    def _connect_unix(self, timeout: float | None) -> httpcore.NetworkStream:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(self.remaining(timeout))
            sock.connect(self.socket_path)
        except OSError as error:
            sock.close()  # which httpcore's own backend does not do
            late = isinstance(error, TimeoutError)
            raise (httpcore.ConnectTimeout if late else httpcore.ConnectError)(
                f"{self.socket_path}: {error}"
            ) from error
        return _SyncStream(self, _UnixStream(sock))

    def extend_deadline(self) -> bool:
        """Return whether a wait may go on beyond its deadline, which has then moved."""
        if self.extend is not None:
            self.deadline_at = self.extend()
        return self.extend is not None and self.deadline_at > time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)


def _resolve_addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except CONNECT_ERRORS as error:
        raise httpcore.ConnectError(str(error)) from error
    # dict.fromkeys keeps the order of preference that getaddrinfo gives.
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class _UnixStream(httpcore.NetworkStream):
    """A connection to a unix socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            self._sock.settimeout(timeout)
            return self._sock.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout("too late") from error
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            self._sock.settimeout(timeout)
            self._sock.sendall(buffer)
        except TimeoutError as error:
            raise httpcore.WriteTimeout("too late") from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        self._sock.close()

    def get_extra_info(self, info: str) -> Any:
        return is_readable(self._sock) if info == "is_readable" else None


class _SyncStream(httpcore.NetworkStream):
    """One connection, every wait of which ends at the backend's deadline."""

    _WRITE_CHUNK_BYTES = 1 << 16

    def __init__(self, backend: SyncDeadlineBackend, stream: httpcore.NetworkStream) -> None:
        self._backend, self._stream = backend, stream
        self._is_write_incomplete = False

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            data = self._read_until_deadline(max_bytes, timeout)
        except httpcore.ReadError as error:
            raise (httpcore.ConnectError(NOT_SENT_MESSAGE) if self._is_write_incomplete else error) from error
        if not data and self._is_write_incomplete:
            raise httpcore.ConnectError(NOT_SENT_MESSAGE)
        return data

    def _read_until_deadline(self, max_bytes: int, timeout: float | None) -> bytes:
        while True:
            try:
                # The deadline is read anew each time, since extend_deadline may have moved it.
                return self._stream.read(max_bytes, self._remaining_or_raise(timeout, httpcore.ReadTimeout))
            except httpcore.ReadTimeout:
                if not self._backend.extend_deadline():
                    raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        view = memoryview(buffer)
        try:
            # httpcore applies the timeout to each send anew, so one large body could take many times as long. Chunks
            # allow to look at the deadline in between.
            for start in range(0, len(view), self._WRITE_CHUNK_BYTES):
                left = self._remaining_or_raise(timeout, httpcore.WriteTimeout)
                self._stream.write(bytes(view[start : start + self._WRITE_CHUNK_BYTES]), left)
        except httpcore.WriteError:
            self._is_write_incomplete = True  # what was not taken whole was not executed
            raise

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._remaining_or_raise(timeout, httpcore.ConnectTimeout)
        return _SyncStream(self._backend, self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _remaining_or_raise(self, timeout: float | None, late: type[Exception]) -> float | None:
        left = self._backend.remaining(timeout)
        if left is not None and left <= 0:
            raise late("too late")
        return left
