"""Errors of a runtime that was killed, or that is full."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from agentbay import (
    AsyncAgentBay,
    Config,
    CreateSessionParams,
    QuotaExceededError,
    RateLimitError,
    SessionError,
    SessionNotFoundError,
)
from tests.local.raw import KEY, embedded
from tests.scripted import quiet_port

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the local runtime needs Linux")


async def test_a_runtime_that_was_killed(tmp_path: Path) -> None:
    """After a killed runtime the next one says the session was released."""
    port = str(quiet_port())
    with embedded(tmp_path, "--port", port) as (child, wire):
        async with AsyncAgentBay(KEY, cfg=Config(endpoint=wire.url)) as bay:
            session = (await bay.create(CreateSessionParams(labels={"a": "b"}))).unwrap().session
            assert session is not None
            child.send(signal.SIGKILL)
            with embedded(tmp_path, "--port", port) as (_, later):
                assert (await bay.list()).unwrap().session_ids == []
                assert isinstance((await bay.get(session.session_id)).exception, SessionNotFoundError)
                assert isinstance((await session.command.run("true")).exception, SessionNotFoundError)
                assert isinstance((await session.file_system.read_file("x")).exception, SessionNotFoundError)
                with pytest.raises(SessionError) as refused:
                    await session.get_labels()
                assert isinstance(refused.value.__cause__, SessionNotFoundError)
                found = later.data("GetSessionDetail", SessionId=session.session_id)
                assert (found["Status"], found["EndReason"]) == (
                    "FINISH",
                    "The runtime ended while the session was RUNNING.",
                )
                assert isinstance((await session.delete()).exception, SessionNotFoundError)


async def test_as_many_sessions_as_there_may_be() -> None:
    """A session beyond the quota is refused at once, until one is deleted."""
    with embedded(None, "--max-sessions", "2") as (_, wire):
        async with AsyncAgentBay(KEY, cfg=Config(endpoint=wire.url)) as bay:
            made = [(await bay.create()).unwrap().session for _ in range(2)]
            failure = (await bay.create()).exception
            assert isinstance(failure, QuotaExceededError)
            assert not isinstance(failure, RateLimitError)
            assert failure.code == "QuotaExceeded.Session"
            assert "--max-sessions" in str(failure)
            assert made[0] is not None
            assert (await made[0].delete()).success
            assert (await bay.create()).success
