"""Blocking sockets."""

from __future__ import annotations

import math
import socket
import time
from typing import TYPE_CHECKING, Any

from .._transport.connection_errors import Disconnected, NothingSent, WaitTimedOut, WriteInterrupted
from .deadline import CONNECT_ERRORS, NOT_SENT_MESSAGE, DeadlineNetwork, is_readable

if TYPE_CHECKING:
    import ssl

_WRITE_CHUNK_BYTES = 1 << 16


class SyncNetwork(DeadlineNetwork):
    """Blocking sockets."""

    def connect(self, host: str, port: int, timeout: float | None) -> SyncStream:
        """Connect to a host, trying its addresses in turn."""
        until = time.monotonic() + (math.inf if timeout is None else timeout)
        if self.socket_path:
            return self._open(socket.AF_UNIX, self.socket_path, self.socket_path, until)
        failure: Exception | None = None
        # socket.create_connection would grant each address the whole timeout anew, and so pass the deadline.
        for family, address in _resolve_addresses(host, port):
            try:
                return self._open(family, address, f"{host}:{port}", until)
            except NothingSent as error:
                failure = error
        raise failure or NothingSent(f"{host} has no address")

    def _open(self, family: int, address: Any, name: str, until: float) -> SyncStream:
        left = self.remaining(until - time.monotonic())
        if left is not None and left <= 0:
            raise NothingSent(f"no connection to {name} in time")
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.settimeout(left)
            sock.connect(address)
        except TimeoutError as error:
            sock.close()
            raise NothingSent(f"no connection to {name} in time") from error
        except OSError as error:
            sock.close()
            raise NothingSent(f"{name}: {error}" if self.socket_path else str(error)) from error
        return SyncStream(self, sock)

    def extend_deadline(self) -> bool:
        """Return whether a wait may go on beyond its deadline, which has then moved."""
        if self.extend is not None:
            self.deadline_at = self.extend()
        return self.extend is not None and self.deadline_at > time.monotonic()


def _resolve_addresses(host: str, port: int) -> list[tuple[int, Any]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except CONNECT_ERRORS as error:
        raise NothingSent(str(error)) from error
    # dict.fromkeys keeps the order of preference that getaddrinfo gives.
    return list(dict.fromkeys((family, address) for family, *_, address in found))


class SyncStream:
    """One connection, every wait of which ends at the network's deadline."""

    def __init__(self, network: SyncNetwork, sock: socket.socket) -> None:
        self._network, self._sock = network, sock
        self._is_write_incomplete = False

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            data = self._read_until_deadline(max_bytes, timeout)
        except OSError as error:
            if self._is_write_incomplete:
                raise NothingSent(NOT_SENT_MESSAGE) from error
            raise Disconnected(str(error)) from error
        if not data and self._is_write_incomplete:
            raise NothingSent(NOT_SENT_MESSAGE)
        return data

    def _read_until_deadline(self, max_bytes: int, timeout: float | None) -> bytes:
        while True:
            try:
                # The deadline is read anew each time, since extend_deadline may have moved it.
                self._sock.settimeout(self._remaining_or_raise(timeout, WaitTimedOut))
                return self._sock.recv(max_bytes)
            except (TimeoutError, WaitTimedOut) as error:
                if not self._network.extend_deadline():
                    raise WaitTimedOut("too late") from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        view = memoryview(buffer)
        try:
            # The timeout is one of a whole `sendall`, so chunks allow to look at both limits in between.
            for start in range(0, len(view), _WRITE_CHUNK_BYTES):
                self._sock.settimeout(self._remaining_or_raise(timeout, WaitTimedOut))
                self._sock.sendall(view[start : start + _WRITE_CHUNK_BYTES])
        except TimeoutError as error:
            raise WaitTimedOut("too late") from error
        except OSError as error:
            self._is_write_incomplete = True  # what was not taken whole was not executed
            raise WriteInterrupted(str(error)) from error

    def close(self) -> None:
        self._sock.close()

    def start_tls(self, tls: ssl.SSLContext, host: str, timeout: float | None) -> SyncStream:
        try:
            self._sock.settimeout(self._remaining_or_raise(timeout, NothingSent))
            return SyncStream(self._network, tls.wrap_socket(self._sock, server_hostname=host))
        except TimeoutError as error:
            self._sock.close()
            raise NothingSent("no TLS handshake in time") from error
        except CONNECT_ERRORS as error:  # ssl.SSLError is an OSError
            self._sock.close()
            raise NothingSent(str(error)) from error

    def is_readable(self) -> bool:
        """Return whether something came, or the end.

        An idle connection that is readable was closed by the service.
        """
        return is_readable(self._sock)

    def _remaining_or_raise(self, timeout: float | None, late: type[Exception]) -> float | None:
        left = self._network.remaining(timeout)
        if left is not None and left <= 0:
            raise late("too late")
        return left
