"""Code stops in the session when its asynchronous caller is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from agentbay import AsyncAgentBay, AsyncSession

COUNTING = "import pathlib\ncount = 1\npathlib.Path('begun').touch()\nwhile True: count += 1"


@pytest.fixture
async def session() -> AsyncIterator[AsyncSession]:
    async with AsyncAgentBay.local() as bay, bay.session() as session:
        yield session


async def begun(session: AsyncSession) -> None:
    """Wait until the code runs."""
    async with asyncio.timeout(60):
        while not (await session.command.run("rm begun")).success:
            await asyncio.sleep(0.02)


async def test_cancelled_code_is_interrupted(session: AsyncSession) -> None:
    """Cancelling interrupts the cell, and keeps the kernel usable."""
    for streamed in (False, True):
        call = asyncio.ensure_future(session.code.run_code(COUNTING, "python", 600, streamed))
        await begun(session)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        after = await session.code.run_code("count", "python", 60)
        assert after.success, after.error_message
        assert int(after.result) > 0
        assert (await session.code.run_code("count", "python")).result == after.result


async def test_cancelled_code_that_waits_never_begins(session: AsyncSession) -> None:
    """Queued code never starts if its caller is cancelled."""
    first = asyncio.ensure_future(session.code.run_code(COUNTING, "python", 600))
    await begun(session)
    second = asyncio.ensure_future(session.code.run_code("second = 1", "python", 600))
    await asyncio.sleep(0.1)
    second.cancel()
    assert await session.code.interrupt()
    assert (await first).error_message == "KeyboardInterrupt"
    assert not await session.code.run_code("second", "python")
