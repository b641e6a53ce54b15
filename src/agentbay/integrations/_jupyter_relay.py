"""Connections of a Jupyter kernel, carried through a terminal of its session.

This program starts the kernel in the session. It needs the standard library alone. At the other end of the terminal is
`_jupyter_session.py`, which uses `Carrier` too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import struct
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

CHANNELS = ("shell", "iopub", "stdin", "hb", "control")
# Kinds of frames. Lower ones are numbers of channels: their frames carry data, and without it close the connection.
READY, START, SIGNAL, EXIT = range(len(CHANNELS), len(CHANNELS) + 4)

_HEAD = struct.Struct("!BiI")  # kind; connection, signal or exit code; length of the data
_CHUNK_BYTES = 1 << 16
_MAX_LOG_BYTES = 2000  # of what a kernel wrote last
_CONNECT_RETRY_SECONDS, _DRAIN_SECONDS = 0.02, 2.0


class NoFrame(ValueError):
    """What arrived is no frame, but the error of a program, for instance."""


class Carrier:
    """One end of the terminal: carries connections by frames."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._send, self._received = send, bytearray()
        self._incoming: dict[int, asyncio.Queue[bytes]] = {}

    async def send(self, kind: int, number: int = 0, data: bytes = b"") -> None:
        """Send a frame."""
        await self._send(_HEAD.pack(kind, number, len(data)) + data)

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Take what has arrived, and yield the frames that are whole.

        Raises:
            NoFrame: It holds something else.
        """
        self._received += data
        while len(self._received) >= _HEAD.size:
            kind, number, size = _HEAD.unpack_from(self._received)
            if kind > EXIT or size > _CHUNK_BYTES:
                raise NoFrame("The terminal holds something else than frames.")
            if len(self._received) < (end := _HEAD.size + size):
                return
            content = bytes(self._received[_HEAD.size : end])
            del self._received[:end]
            yield kind, number, content

    def add(self, number: int) -> None:
        """Keep data for a connection from now on."""
        self._incoming[number] = asyncio.Queue()

    def deliver(self, number: int, data: bytes) -> bool:
        """Pass data to a connection, and return whether it is known here."""
        if found := self._incoming.get(number):
            found.put_nowait(data)
        return found is not None

    async def carry(
        self, channel: int, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry a connection until one of its ends closes it."""
        delivering = asyncio.create_task(self._write(number, writer))
        try:
            # A broken connection is one that ends, which the other side is told below.
            with contextlib.suppress(OSError):
                while data := await reader.read(_CHUNK_BYTES):
                    await self.send(channel, number, data)
            await self.send(channel, number)
        finally:
            delivering.cancel()
            del self._incoming[number]
            writer.close()

    async def _write(self, number: int, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await self._incoming[number].get():
                writer.write(data)
                await writer.drain()
        writer.close()  # which ends the reader too


class Relay:
    """The kernel in the session, and the connections to its sockets."""

    def __init__(self, carrier: Carrier, directory: str) -> None:
        self._carrier, self._directory, self._log = carrier, directory, Path(directory, "log")
        self._kernel: asyncio.subprocess.Process | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.ended = asyncio.Event()

    async def handle(self, kind: int, number: int, data: bytes) -> None:
        """Act on a frame."""
        if kind == START:
            await self._start(json.loads(data))
            self._reporting = asyncio.create_task(self._report_end())
        elif kind == SIGNAL and self._kernel:
            # The kernel has ended, which `_report_end` tells the other side.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._kernel.pid, number)
        elif kind < len(CHANNELS) and not self._carrier.deliver(number, data) and data:
            self._carrier.add(number)
            self._carrier.deliver(number, data)
            task = asyncio.create_task(self._connect(kind, number))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _write_connection_file(self, connection: dict[str, Any]) -> str:
        ports = {f"{channel}_port": number for number, channel in enumerate(CHANNELS, 1)}  # 0 would mean any
        file = Path(self._directory, "connection.json")
        file.write_text(json.dumps({**connection, **ports, "transport": "ipc", "ip": f"{self._directory}/s"}))
        return str(file)

    async def _start(self, order: dict[str, Any]) -> None:
        file = self._write_connection_file(order["connection"])
        argv = [part.replace("{connection_file}", file) for part in order["argv"]]
        with self._log.open("wb") as log:
            self._kernel = await asyncio.create_subprocess_exec(
                *argv, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **order["env"]},
                start_new_session=True,
            )  # fmt: skip

    async def _connect(self, channel: int, number: int) -> None:
        while self._kernel is None or self._kernel.returncode is None:
            try:
                reader, writer = await asyncio.open_unix_connection(f"{self._directory}/s-{channel + 1}")
            except OSError:  # the kernel is still starting
                await asyncio.sleep(_CONNECT_RETRY_SECONDS)
            else:
                await self._carrier.carry(channel, number, reader, writer)
                return
        await self._carrier.send(channel, number)

    async def _report_end(self) -> None:
        assert self._kernel is not None
        code = await self._kernel.wait()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_DRAIN_SECONDS)  # they pass on what the kernel said last
        await self._carrier.send(EXIT, code, self._log.read_bytes()[-_MAX_LOG_BYTES:])
        self.ended.set()


async def main() -> None:
    """Serve the terminal that is this program's input and output."""
    import tty  # here, since Windows, where the other end may be, has none

    tty.setraw(0)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
    writer = asyncio.StreamWriter(transport, protocol, None, loop)

    async def send(data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    async def serve() -> None:
        await carrier.send(READY)
        while data := await reader.read(_CHUNK_BYTES):
            for frame in carrier.feed(data):
                await relay.handle(*frame)

    directory = tempfile.mkdtemp(prefix="jupyter-")
    carrier = Carrier(send)
    relay = Relay(carrier, directory)
    try:
        tasks = [asyncio.create_task(serve()), asyncio.create_task(relay.ended.wait())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await relay.handle(SIGNAL, signal.SIGKILL, b"")
        shutil.rmtree(directory)


if __name__ == "__main__":
    asyncio.run(main())
