"""The service's end of what ties it to a kernel: a socket for frames, and a pipe for each output stream."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable
from typing import Any

_LARGEST_FRAME = 32 << 20
_CHUNK = 1 << 16
_PIPE_CAPACITY_BYTES = 1 << 20  # bytes; no pipe holds more
_STREAMS = ("stdout", "stderr")

FrameHandler = Callable[[dict[str, Any]], None]
OutputHandler = Callable[[str, bytes], None]


class BadFrame(Exception):
    """A kernel, or code that has got hold of its socket, sent something that is no frame."""


class FrameProtocol(asyncio.Protocol):
    """Cuts what arrives into frames: a length of 4 bytes and a JSON object."""

    def __init__(self, on_frame: FrameHandler, on_nonsense: Callable[[], None]) -> None:
        self._on_frame, self._on_protocol_error = on_frame, on_nonsense
        self._data = bytearray()
        self._failed = False

    def data_received(self, data: bytes) -> None:
        if self._failed:
            return
        self._data += data
        try:
            while (frame := self._next()) is not None:
                self._on_frame(frame)
        except BadFrame:
            self._data.clear()
            self._failed = True  # nothing that follows can be believed
            self._on_protocol_error()

    def _next(self) -> dict[str, Any] | None:
        if len(self._data) < 4:
            return None
        size = int.from_bytes(self._data[:4], "little")
        if size > _LARGEST_FRAME:
            raise BadFrame
        if len(self._data) < 4 + size:
            return None
        body = bytes(memoryview(self._data)[4 : 4 + size])
        del self._data[: 4 + size]
        return _object(body)


class KernelConnection:
    """Made with `open`; gives the kernel's ends in `theirs`, in the order of standard streams.

    What was written before a frame was sent is handed on before that frame.
    """

    def __init__(self, on_frame: FrameHandler, on_output: OutputHandler, on_nonsense: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_frame, self._on_output, self._on_protocol_error = on_frame, on_output, on_nonsense
        self._pipes: dict[str, int] = {}
        self._transport: asyncio.Transport | None = None
        self.kernel_fds: list[int] = []

    async def open(self) -> None:
        """Make socket and pipes."""
        ours, theirs = socket.socketpair()
        self.kernel_fds.append(theirs.detach())
        for name in _STREAMS:
            reader, writer = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(reader, False)
            self._pipes[name] = reader
            self.kernel_fds.append(writer)
            self._loop.add_reader(reader, self._read, name)
        self._transport, _ = await self._loop.create_unix_connection(
            lambda: FrameProtocol(self._on_frame_after_output, self._on_protocol_error), sock=ours
        )

    def send(self, message: dict[str, Any]) -> None:
        """Send a frame."""
        self.send_bytes(json.dumps(message).encode())

    def send_bytes(self, body: bytes) -> None:
        """Send a frame that holds anything."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(len(body).to_bytes(4, "little") + body)

    def read_pending_output(self) -> None:
        """Hand on what has been written until now."""
        for name in list(self._pipes):
            left = _PIPE_CAPACITY_BYTES
            while left > 0 and (size := self._read(name)):
                left -= size

    def close(self) -> None:
        """Let go of everything."""
        if self._transport is not None:
            self._transport.abort()
        for name in list(self._pipes):
            self._close_pipe(name)
        for fd in self.kernel_fds:
            os.close(fd)
        self.kernel_fds.clear()

    def _on_frame_after_output(self, frame: dict[str, Any]) -> None:
        self.read_pending_output()
        self._on_frame(frame)

    def _read(self, name: str) -> int:
        if name not in self._pipes:
            return 0
        try:
            chunk = os.read(self._pipes[name], _CHUNK)
        except BlockingIOError:
            return 0
        if chunk:
            self._on_output(name, chunk)
        else:
            self._close_pipe(name)
        return len(chunk)

    def _close_pipe(self, name: str) -> None:
        fd = self._pipes.pop(name)
        self._loop.remove_reader(fd)
        os.close(fd)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadFrame from error
    if not isinstance(value, dict):
        raise BadFrame
    return value
