"""The time for which a session is paused does not count to the limits of calls."""

from __future__ import annotations

from functools import partial

import pytest

from agentbay import AsyncAgentBay, DeadlineExceeded
from agentbay._async import code as code_module, command as command_module
from agentbay._concurrency import async_sleep
from tests.at_once import async_at_once

from .ways import WAYS, client_by


@pytest.mark.parametrize("way", WAYS)
async def test_pause_uses_up_no_time_limit(bay: AsyncAgentBay, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call whose session is paused beyond its deadline goes on when it is resumed."""
    monkeypatch.setattr(command_module, "_COMMAND_REPLY_MARGIN_SECONDS", 0.5)
    monkeypatch.setattr(code_module, "_CODE_REPLY_MARGIN_SECONDS", 0.5)
    async with client_by(way, bay) as other, other.session() as session:
        await session.code.run_code("1", "python")

        async def pause() -> None:
            await async_sleep(1)
            assert await session.pause(poll_interval=0.05)
            await async_sleep(5)
            assert await session.resume(poll_interval=0.05)

        work = "for i in 1 2 3 4 5 6 7 8; do sleep 0.2; done; echo done"
        code = "import time\nfor _ in range(8): time.sleep(0.2)\nprint('done')"
        results = await async_at_once(
            [
                partial(session.command.run, work, 3000),
                partial(session.code.run_code, code, "python", 3),
                pause,
            ]
        )
        assert [results[0].stdout, results[1].logs.stdout] == ["done\n", ["done\n"]]
        if way != "proxy":  # a WebSocket needs one that makes tunnels
            results = await async_at_once([partial(session.code.run_code, code, "python", 3, True), pause])
            assert results[0].success


async def test_pause_uses_up_no_time_of_a_terminal(bay: AsyncAgentBay) -> None:
    """A pause uses up the time limit neither of waiting nor of reading."""
    async with bay.session() as session:
        handle = await session.pty.create(argv=["sh", "-c", "sleep 2; echo ready; sleep 2; exit 5"], echo=False)

        async def pause() -> None:
            await async_sleep(0.5)
            await session.pause(poll_interval=0.05)
            await async_sleep(4)
            await session.resume(poll_interval=0.05)

        assert b"ready" in (await async_at_once([partial(handle.read_until, "ready", 3.5), pause]))[0]
        assert (await async_at_once([partial(handle.wait, 3.5), pause]))[0] == 5
        with pytest.raises(DeadlineExceeded, match=r"within 0\.5 s"):
            await (await session.pty.create(argv=["sleep", "9"])).read(0.5)
