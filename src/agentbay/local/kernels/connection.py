"""The connection to one kernel, and the protocol that every kernel speaks.

A kernel is a program in a sandbox with a socket and two pipes. It gets the socket as standard input, and should move it
to another descriptor so that code cannot read it by accident. Standard output and standard error are the pipes: what
code and its child processes write there needs no frame.

A frame is a length (4 bytes, little endian) and a JSON object in UTF-8 of that many bytes. A kernel of a new language
must do this:

1. Read its own program, as one frame that is no JSON; the loaders in `languages.py` do that.
2. Send `{"event": "ready", "pid": PID}` when it can run code, or `{"event": "failed", "message": TEXT}`. The process
   leads a session (setsid), so that its children get its signals.
3. Read `{"code": TEXT, "env": {NAME: VALUE}}`: set these variables and run the code. Requests come one at a time. All
   values are text, in this order, so that a kernel without a JSON library can read them.
4. While the code runs, send in any number and order:
   - `{"event": "begin"}`: from now on SIGINT interrupts the code (kernels that are interrupted by signals only);
   - `{"event": "result", "data": {MIME: CONTENT}, "main": BOOL, "display": ID, "update": BOOL}`: something is
     displayed, or replaces what was displayed under the same id. `main` is the value of the code. Binary content is
     base64. Threads and tasks of earlier code may send it between two requests as well;
   - `{"event": "clear", "wait": BOOL}`: forget what was displayed, at once or when something new is. Also at any time;
   - `{"event": "error", "name": TEXT, "value": TEXT, "traceback": TEXT}`: the code failed.
5. Send `{"event": "done", "count": NUMBER}` at the end, also after an error. `count` is the number of executions.
6. Interrupt the running code on SIGINT to its process group, or, if it was started with `interrupt_by_frame`, when it
   reads `{"interrupt": true}`. An interrupt without running code does nothing.
7. Exit when the socket is closed.

Before a frame is sent, all earlier output must be in the pipes (flush). A frame of more than `MAX_FRAME_BYTES` is left
out and reported in the output, so a kernel should shorten large content itself. The service trusts nothing that a
kernel says beyond the output of its own execution: code can write to the socket.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable
from typing import Any, cast

from agentbay.local.kernels.byte_budget import ByteBudget
from agentbay.local.kernels.execution_output import EncodedData
from agentbay.local.large_json_decoder import TooManyValuesError, load_json
from agentbay.local.worker_thread import LARGE_BYTES, run_in_worker

MAX_FRAME_BYTES = 32 << 20
_ABSURD_FRAME_BYTES = 256 << 20  # no kernel sends that much, so these bytes are not a length
_SMALL_FRAME_BYTES = 1 << 16  # accepted in any case, so that an execution whose budget is used up can still end
MAX_FRAME_VALUES = 2_000_000  # in a large frame
_MAX_NESTING = 100  # levels
_MAX_FRAMES_PER_TURN = 64  # then the event loop serves others
_CHUNK_BYTES = 1 << 16
_PIPE_CAPACITY_BYTES = 1 << 20  # no pipe holds more
_STREAMS = ("stdout", "stderr")

FrameHandler = Callable[[dict[str, Any]], None]
OutputHandler = Callable[[str, bytes], None]
SizeHandler = Callable[[int], None]


class BadFrame(Exception):
    """What arrived from a kernel is no frame."""


class FrameProtocol(asyncio.Protocol):
    """Splits the incoming bytes into frames.

    Args:
        on_frame: Gets each frame.
        on_left_out: Gets the size of each frame that is too large, or for which the budget has no room.
        on_protocol_error: Called once, when what arrives is no frame.
        budget: Bounds the bytes that are held.
    """

    def __init__(
        self,
        on_frame: FrameHandler,
        on_left_out: SizeHandler,
        on_protocol_error: Callable[[], None],
        budget: ByteBudget,
    ) -> None:
        self._on_frame, self._on_left_out, self._on_protocol_error = on_frame, on_left_out, on_protocol_error
        self._budget = budget
        self._transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._size: int | None = None  # of the frame that is being received; None between frames
        self._reserved = self._skip = 0  # bytes of the budget, and bytes that are discarded
        self._failed = self._parsing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # by name: uvloop's transport is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self._failed = True
        self._release()

    def data_received(self, data: bytes) -> None:
        if not self._failed:
            self._data += data
            self._process()

    def _process(self) -> None:
        if self._failed or self._parsing or self._transport is None:
            return
        try:
            for _ in range(_MAX_FRAMES_PER_TURN):
                if not self._process_next():
                    self._pause_while_parsing(self._transport)
                    return
        except BadFrame:
            self._fail()
            return
        self._transport.pause_reading()  # back pressure: a flood of frames must not keep the loop from other sessions
        asyncio.get_running_loop().call_soon(self._process)

    def _pause_while_parsing(self, transport: asyncio.Transport) -> None:
        if self._parsing:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def _fail(self) -> None:
        self._failed = True  # nothing that follows can be believed
        self._data.clear()
        self._release()
        self._on_protocol_error()

    def _process_next(self) -> bool:
        """Process one frame, or return False if there is something to wait for."""
        if self._skip:
            skipped = min(self._skip, len(self._data))
            del self._data[:skipped]
            self._skip -= skipped
            return not self._skip
        if self._size is None:
            return self._read_size()
        if len(self._data) < self._size:
            return False
        size, self._size = self._size, None
        body = bytes(memoryview(self._data)[:size])
        del self._data[:size]
        if size <= LARGE_BYTES:
            self._deliver(size, _parse(body))
        else:
            self._parsing = True
            parsing = asyncio.ensure_future(run_in_worker(_parse_large, body))
            parsing.add_done_callback(lambda done: self._on_parsed(size, done))
        return not self._parsing

    def _on_parsed(self, size: int, parsing: asyncio.Future[dict[str, Any] | None]) -> None:
        self._parsing = False
        if self._failed or parsing.cancelled():
            return
        try:
            self._deliver(size, parsing.result())
        except BadFrame:
            self._fail()
        else:
            self._process()

    def _deliver(self, size: int, frame: dict[str, Any] | None) -> None:
        try:
            if frame is None:
                self._on_left_out(size)
            else:
                self._on_frame(frame)
        finally:
            self._release()

    def _read_size(self) -> bool:
        if len(self._data) < 4:
            return False
        size = int.from_bytes(self._data[:4], "little")
        del self._data[:4]
        if size > _ABSURD_FRAME_BYTES:
            raise BadFrame
        if size <= _SMALL_FRAME_BYTES:
            self._size = size
        elif size <= MAX_FRAME_BYTES and self._budget.try_reserve(size):
            self._size = self._reserved = size
        else:
            self._skip = size
            self._on_left_out(size)
        return True

    def _release(self) -> None:
        self._budget.release(self._reserved)
        self._reserved = 0


class KernelConnection:
    """The service's ends of the socket and the pipes to one kernel.

    Output that was written before a frame is handed on before that frame.

    Attributes:
        kernel_fds: The kernel's ends, as its standard input, output and error. The caller of `open` takes them.
    """

    def __init__(
        self,
        on_frame: FrameHandler,
        on_output: OutputHandler,
        on_left_out: SizeHandler,
        on_protocol_error: Callable[[], None],
        budget: ByteBudget,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_frame, self._on_output = on_frame, on_output
        self._on_left_out, self._on_protocol_error = on_left_out, on_protocol_error
        self._budget = budget
        self._pipes: dict[str, int] = {}
        self._transport: asyncio.Transport | None = None
        self.kernel_fds: list[int] = []

    async def open(self) -> None:
        """Create the socket and the pipes."""
        ours, theirs = socket.socketpair()
        self.kernel_fds.append(theirs.detach())
        for name in _STREAMS:
            reader, writer = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(reader, False)
            self._pipes[name] = reader
            self.kernel_fds.append(writer)
            self._loop.add_reader(reader, self._read, name)
        self._transport, _ = await self._loop.create_unix_connection(self._make_protocol, sock=ours)

    def send(self, message: dict[str, Any]) -> None:
        """Send a frame with a JSON object."""
        self.send_bytes(json.dumps(message).encode())

    def send_bytes(self, body: bytes) -> None:
        """Send a frame with any content."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(len(body).to_bytes(4, "little") + body)

    def read_pending_output(self) -> None:
        """Hand on the output that is in the pipes."""
        for name in list(self._pipes):
            # One pipe's content at most: a process that writes without end must not keep the loop here.
            left = _PIPE_CAPACITY_BYTES
            while left > 0 and (size := self._read(name)):
                left -= size

    def close(self) -> None:
        """Close both ends."""
        if self._transport is not None:
            # close() would first wait until the kernel, which may be stopped, has read what is buffered.
            self._transport.abort()
        for name in list(self._pipes):
            self._close_pipe(name)
        for fd in self.kernel_fds:
            os.close(fd)
        self.kernel_fds.clear()

    def _make_protocol(self) -> FrameProtocol:
        return FrameProtocol(self._on_frame_after_output, self._on_left_out, self._on_protocol_error, self._budget)

    def _on_frame_after_output(self, frame: dict[str, Any]) -> None:
        # Kernels flush before they send, but the event loop may see the socket before the pipes.
        self.read_pending_output()
        self._on_frame(frame)

    def _read(self, name: str) -> int:
        if name not in self._pipes:
            return 0
        try:
            chunk = os.read(self._pipes[name], _CHUNK_BYTES)
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


def _parse_large(body: bytes) -> dict[str, Any] | None:
    """Parse a frame in the worker thread, and encode what it displays."""
    try:
        frame = _parse(body)
    except BadFrame:
        return {}  # has no event, and so is refused; an exception would keep alive what has been parsed
    if frame and isinstance(data := frame.get("data"), dict):
        frame["data"] = EncodedData(data)
    return frame


def _parse(body: bytes) -> dict[str, Any] | None:
    """Parse a frame, or return None if it is too complex."""
    try:
        value = load_json(body, MAX_FRAME_VALUES)
    except (TooManyValuesError, RecursionError):
        return None
    except ValueError as error:
        raise BadFrame from error
    if not isinstance(value, dict):
        raise BadFrame
    return None if _is_nested_deeper(value, _MAX_NESTING) else value


def _is_nested_deeper(value: Any, levels: int) -> bool:
    """Return whether JSON is nested deeper: encoding it again would meet Python's recursion limit."""
    level = [value]
    for _ in range(levels):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True
