"""The socket from a Python kernel to the service.

Interrupts must not break a frame on it, so they are handled here too.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, TextIO


class ServiceConnection:
    """The socket to the service, and the streams that lead to its pipes."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._streams: dict[str, TextIO] = {}
        self._pid = 0
        self._send_lock = threading.Lock()  # code may display from threads of its own

    def open(self, sock: socket.socket) -> None:
        """Use a socket from now on, and the descriptors 1 and 2 as streams."""
        self._socket, self._pid = sock, os.getpid()
        for name, fd in (("stdout", 1), ("stderr", 2)):
            self._open_stream(name, fd)

    def reopen_streams(self) -> None:
        """Open the standard streams again that code has closed."""
        for name, fd in (("stdout", 1), ("stderr", 2)):
            if self._streams[name].closed and getattr(sys, name) is self._streams[name]:
                self._open_stream(name, fd)

    @property
    def in_forked_child(self) -> bool:
        """Whether this process is a child that code has forked."""
        return os.getpid() != self._pid

    def exit_forked_child(self, code: int = 0) -> None:
        """Exit in a child that code has forked.

        A second kernel at the same socket would take the requests of the first.
        """
        if self.in_forked_child:
            self.flush()
            os._exit(code)

    def send(self, event: str, **fields: Any) -> None:
        """Send a frame after all output so far, except in a forked child."""
        if self._socket is None or self.in_forked_child:
            return
        with InterruptHandler.deferred(), self._send_lock:
            self.flush()
            body = encode({"event": event, **fields})
            self._socket.sendall(len(body).to_bytes(4, "little") + body)

    def flush(self) -> None:
        """Write out what Python buffers, also where code has closed or replaced its streams."""
        for stream in {*self._streams.values(), sys.stdout, sys.stderr}:
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                # What stands there now may be closed, or no stream at all.
                continue

    def write_error(self, text: str) -> None:
        """Write to the standard error, also where code has taken it away."""
        try:
            sys.stderr.write(text)
        except (OSError, ValueError, AttributeError):
            os.write(2, text.encode("utf-8", "backslashreplace"))

    def receive(self) -> dict[str, Any] | None:
        """Return the next request, or None if the service has disconnected."""
        head = self._read(4)
        body = self._read(int.from_bytes(head, "little")) if head else b""
        return json.loads(body) if body else None

    def _open_stream(self, name: str, fd: int) -> None:
        self._streams[name] = stream = _writer(fd)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)

    def _read(self, size: int) -> bytes:
        assert self._socket is not None
        data = b""
        while len(data) < size:
            chunk = self._socket.recv(size - len(data))
            if not chunk:
                return b""
            data += chunk
        return data


class InterruptHandler:
    """Delivers SIGINT to the cell that runs, and to nothing else."""

    _pending = False

    @classmethod
    @contextlib.contextmanager
    def enabled(cls) -> Iterator[None]:
        """Let SIGINT raise KeyboardInterrupt in the block.

        An earlier cell may have set another handler.
        """
        cls._pending = False
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, cls.record_pending)

    @classmethod
    @contextlib.contextmanager
    def deferred(cls) -> Iterator[None]:
        """Defer SIGINT to the end of the block.

        So a frame is sent whole. Python delivers signals to the main thread only.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = signal.signal(signal.SIGINT, cls.record_pending)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, former)
        if cls._pending and former is signal.default_int_handler:
            cls._pending = False
            raise KeyboardInterrupt

    @classmethod
    def record_pending(cls, number: int, frame: FrameType | None) -> None:
        """Record an interrupt, as a signal handler."""
        cls._pending = True


def _writer(fd: int) -> TextIO:
    return open(fd, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)


def encode(value: object) -> bytes:
    """Encode as JSON, with an escape for each lone surrogate."""
    return json.dumps(value, ensure_ascii=False, default=repr).encode("utf-8", "backslashreplace")
