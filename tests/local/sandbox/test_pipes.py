"""Pipes to and from sandboxes: those through which much goes get more room, since each full one stops a process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

from agentbay.local.sandbox.service.command_stream import CommandStream
from agentbay.local.sandbox.service.file_streams import write_stream
from agentbay.local.sandbox.service.output_store import OutputStore
from tests.local.sandbox.conftest import SandboxFactory, becomes

USUAL_BYTES, MUCH_BYTES = 1 << 16, 1 << 20


def capacity(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)


def large_pipes() -> set[str]:
    """Return the pipes of this process that hold much."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # no pipe, or closed by now
            if capacity(int(fd.name)) == MUCH_BYTES:
                found.add(str(fd.readlink()))
    return found


async def test_much_input(factory: SandboxFactory) -> None:
    """The pipes of an upload and of a command with a body hold a megabyte, from the beginning."""
    sandbox, found = await factory.make(), list[int]()

    async def pieces() -> AsyncGenerator[bytes]:
        found.append(len(large_pipes()))
        yield b"content"

    await write_stream(sandbox, "file", pieces(), len(b"content"))
    command = CommandStream(sandbox, "cat", 60, cwd=None, env={})
    await command.write(pieces())
    assert [piece async for piece in command.pieces()] == [b"content"]
    command.close()
    assert found == [1, 3]  # of the command, its output and its errors too


async def test_much_output(tmp_path: Path) -> None:
    """The pipe of a background process that has filled it holds a megabyte from then on."""
    store = OutputStore(str(tmp_path / "output"))
    for size, room in (1000, USUAL_BYTES), (USUAL_BYTES, MUCH_BYTES):
        before = store.size
        os.write(store.write_fd, bytes(size))

        async def kept(wanted: int = before + size) -> bool:
            return store.size == wanted

        await becomes(kept)
        assert capacity(store.write_fd) == room
    os.close(store.write_fd)

    async def ended() -> bool:
        return store._is_closed

    await becomes(ended)
