"""A command that nobody waits for any more is gone, and all that it started: seen in the session's own processes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import pytest

from agentbay import AgentBay, AsyncAgentBay, AsyncSession, CommandTimeoutError, Session

# two of a group, one of a session of its own, and three that nobody is the parent of: of these, one has an empty
# environment and one an environment of 200 KB
FAMILY = (
    "sleep 4711 & sh -c 'sleep 4712; :' & setsid sleep 4713 & (setsid sleep 4714 &); (setsid env -i sleep 4715 &); "
    "(B=$(head -c 100000 /dev/zero | tr '\\0' b); export B; export C=$B; setsid sleep 4716 &); wait"
)
SIZE = 6


@pytest.fixture(scope="module")
async def bay() -> AsyncIterator[AsyncAgentBay]:
    async with AsyncAgentBay.local() as bay:
        yield bay


@pytest.fixture(params=["by link", "by service"])
async def session(bay: AsyncAgentBay, request: pytest.FixtureRequest) -> AsyncIterator[AsyncSession]:
    async with bay.session() as session:
        if request.param == "by service":
            session.link_url = ""
        yield session


async def family(session: AsyncSession) -> int:
    """How many of the family there are."""
    return int((await session.command.run("pgrep -x -c sleep")).stdout)


async def reached(session: AsyncSession, count: int) -> None:
    """Wait until there are so many."""
    end = time.monotonic() + 60
    while (there := await family(session)) != count:
        assert time.monotonic() < end, f"{there} processes, not {count}"
        await asyncio.sleep(0.05)


async def test_cancelled(session: AsyncSession) -> None:
    """Cancelling the call kills them."""
    task = asyncio.create_task(session.command.run(FAMILY))
    await reached(session, SIZE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await reached(session, 0)


async def test_timed_out(session: AsyncSession) -> None:
    """So does the end of its time, before the answer comes."""
    result = await session.command.run(FAMILY, timeout_ms=1500)
    assert isinstance(result.exception, CommandTimeoutError)
    assert await family(session) == 0


PROGRAM = """
import sys
from agentbay import AgentBay, Config
with AgentBay(sys.argv[1], Config(endpoint=sys.argv[2])) as bay:
    session = bay.get(sys.argv[3]).unwrap().session
    try:
        session.command.run(sys.argv[4])
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_interrupted() -> None:
    """Ctrl-C at a program that uses the blocking client kills them, and is an ordinary KeyboardInterrupt there."""
    with AgentBay.local() as bay, bay.session() as session:
        arguments = [bay.api_key, bay.client.settings.url, session.session_id, FAMILY]
        child = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, text=True)
        wait_for(session, SIZE)
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=60)[0] == "interrupted\n"
        wait_for(session, 0)


def wait_for(session: Session, count: int) -> None:
    end = time.monotonic() + 60
    while (there := int(session.command.run("pgrep -x -c sleep").stdout)) != count:
        assert time.monotonic() < end, f"{there} processes, not {count}"
        time.sleep(0.05)
