"""A way to the runtime that holds its answers back, so that a test can cancel a call that is under way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import pytest

from agentbay import AgentBay


class Gate:
    """Passes on what clients send, and the answers once it is open."""

    def __init__(self, endpoint: str) -> None:
        self._runtime = urlsplit(endpoint)
        self._answered, self._open = asyncio.Event(), asyncio.Event()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        there = await asyncio.open_connection(self._runtime.hostname, self._runtime.port)
        asking = asyncio.create_task(_copy(reader, there[1]))
        with suppress(OSError):
            while data := await there[0].read(1 << 16):
                self._answered.set()
                await self._open.wait()
                writer.write(data)
        writer.close()
        await asking

    async def cancel(self, call: Awaitable[object]) -> None:
        """Cancel a call when the runtime has answered and the caller does not know it yet."""
        task = asyncio.ensure_future(call)
        async with asyncio.timeout(60):
            await self._answered.wait()
        task.cancel()
        self._open.set()
        with pytest.raises(asyncio.CancelledError):
            await task


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
    writer.close()


@asynccontextmanager
async def gate_to_runtime(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gate]:
    """Put a gate before the runtime of the environment, and check that no session is added."""
    before = await asyncio.to_thread(_list_sessions)  # those of tests that have failed
    gate = Gate(os.environ["AGENTBAY_ENDPOINT"])
    server = await asyncio.start_server(gate.carry, "127.0.0.1", 0)
    with monkeypatch.context() as patch:
        patch.setenv("AGENTBAY_ENDPOINT", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        yield gate
    server.close()
    assert await asyncio.to_thread(_list_sessions) == before


def _list_sessions() -> list[str]:
    with AgentBay() as bay:
        return [str(session) for session in bay.list()]
