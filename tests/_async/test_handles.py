"""Times of sessions, deleting by id, handles with other limits, and results as dicts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentbay import (
    AsyncAgentBay,
    AsyncSession,
    ClientClosedError,
    ConfigurationError,
    CreateSessionParams,
    DeadlineExceeded,
    InvalidArgumentError,
    LifecyclePolicy,
    NotSupportedError,
    RateLimitError,
    SessionNotFoundError,
)
from agentbay._concurrency import async_sleep
from tests.scripted import Service, ok, refused, silence

from .calls import client, handle

CREATED = ok({"Success": True, "SessionId": "session-new"})
NO_SUCH_ACTION = refused("InvalidAction.NotFound", 404)


def is_near(found: datetime | None, wanted: datetime) -> bool:
    return found is not None and abs(found - wanted) < timedelta(seconds=30)


async def test_delete_by_id(bay: AsyncAgentBay) -> None:
    """A session is deleted by its id alone."""
    session_id = (await bay.create()).unwrap().session.session_id
    assert (await bay.delete(session_id)).success
    assert isinstance((await bay.get(session_id)).exception, SessionNotFoundError)
    with pytest.raises(InvalidArgumentError, match="session_id is required"):
        await bay.delete(" ")
    with pytest.raises(InvalidArgumentError):
        await bay.delete(5)  # type: ignore[arg-type]


async def test_times_of_a_session(bay: AsyncAgentBay) -> None:
    """A handle knows when its session was made and will end, also one that was found by its id."""
    now = datetime.now(UTC)
    async with bay.session() as session:
        assert is_near(session.created_at, now)
        assert session.expires_at is None
    params = CreateSessionParams(lifecycle_policy=LifecyclePolicy(idle_release_timeout=20, max_runtime=60))
    async with bay.session(params) as session:
        assert is_near(session.expires_at, now + timedelta(minutes=20))
        found = (await bay.get(session.session_id)).unwrap().session
        assert found.created_at == session.created_at
        assert is_near(found.expires_at, now + timedelta(minutes=20))


async def test_a_change_of_the_lifecycle(bay: AsyncAgentBay) -> None:
    """New limits replace those of the creation, count from now, and hold."""
    params = CreateSessionParams(idle_release_timeout=2)
    async with bay.session(params) as session:
        changed = await session.set_lifecycle(LifecyclePolicy(idle_release_timeout=30, max_runtime=45))
        assert changed.success
        assert is_near(changed.data, datetime.now(UTC) + timedelta(minutes=30))
        assert session.expires_at == changed.data
        await async_sleep(3)
        assert (await session.get_status()).status == "RUNNING"
        assert (await session.set_lifecycle(LifecyclePolicy(manual_release=True))).data is None
        assert (await session.pause()).success
        assert (await session.set_lifecycle(LifecyclePolicy(max_runtime=10))).success
    gone = await session.set_lifecycle(LifecyclePolicy())
    assert isinstance(gone.exception, SessionNotFoundError)


async def test_times_on_another_service() -> None:
    """Where the service tells no times, those that the client knows stand in for them."""
    with Service(
        {"CreateMcpSession": CREATED, "SetSessionLifecycle": NO_SUCH_ACTION, "GetSession": CREATED}
    ) as service:
        async with client(service.url) as bay:
            params = CreateSessionParams(lifecycle_policy=LifecyclePolicy(max_runtime=3, idle_release_timeout=9))
            session = (await bay.create(params)).unwrap().session
            assert is_near(session.created_at, datetime.now(UTC))
            assert session.created_at is not None
            assert session.expires_at == session.created_at + timedelta(minutes=3)
            refusal = await session.set_lifecycle(LifecyclePolicy())
            assert isinstance(refusal.exception, NotSupportedError)
            assert "keep_alive" in str(refusal.exception)
            assert (await bay.create()).unwrap().session.expires_at is None
            assert (await bay.get("session-new")).unwrap().session.created_at is None


async def test_a_shorter_time_limit() -> None:
    """`with_options` limits each call of a client or a session, and leaves the first one alone."""
    with Service(silence) as service:
        async with client(service.url, max_retries=0) as bay:
            hasty = bay.with_options(timeout=0.2)
            assert (hasty.timeout, bay.timeout) == (0.2, 60)
            assert isinstance((await hasty.get("session-x")).exception, DeadlineExceeded)
            session = handle(bay, "").with_options(timeout=0.2)
            assert isinstance((await session.file_system.read_file("f")).exception, DeadlineExceeded)
            assert isinstance((await session.keep_alive()).exception, DeadlineExceeded)


async def test_other_retries_and_strictness() -> None:
    """Retries and strictness change for the new client alone."""
    with Service(refused("Throttling", 429, {"Retry-After": "0"})) as service:
        async with client(service.url, max_retries=2) as bay:
            assert not await bay.with_options(max_retries=0).get("x")
            assert service.count() == 1
            with pytest.raises(RateLimitError):
                await bay.with_options(strict=True).get("x")
            assert service.count() == 4
            assert not await bay.get("x")


async def test_one_pool_of_connections() -> None:
    """Clients with other limits share the connections, and end with the first one."""
    with Service(CREATED) as service:
        bay = client(service.url)
        other = bay.with_options(timeout=5)
        for each in (bay, other, other.with_options(max_retries=1), bay):
            assert (await each.create()).success
        assert len({request.connection for request in service.requests}) == 1
        await other.aclose()
        assert (await bay.create()).success
        await bay.aclose()
        with pytest.raises(ClientClosedError):
            await other.create()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "5"])
async def test_limits_that_are_wrong(bay: AsyncAgentBay, timeout: Any) -> None:
    """A time limit that is none is refused at once."""
    with pytest.raises((ConfigurationError, InvalidArgumentError)):
        bay.with_options(timeout=timeout)


async def test_with_options_of_a_session(session: AsyncSession) -> None:
    """The new handle is of the same session, with all that the first one knows."""
    other = session.with_options(timeout=30, strict=True)
    assert vars(other) | {"agent_bay": None} == vars(session) | {"agent_bay": None}
    assert (await other.command.run("echo hi")).output == "hi\n"
    assert other.timeout == 30


async def test_results_as_json(session: AsyncSession) -> None:
    """Every kind of result becomes plain values, failures with their error."""
    done = (await session.command.run("printf out; exit 3")).to_dict()
    assert (done["exit_code"], done["stdout"], done["success"]) == (3, "out", False)
    await session.file_system.write_file("f", b"\x00\xff")
    assert (await session.file_system.read_file("f", format="bytes")).to_dict()["content"] == "AP8="
    missing = json.loads((await session.file_system.read_file("missing")).to_json())
    assert missing["error"]["type"] == type((await session.file_system.read_file("missing")).exception).__name__
    found = json.loads((await session.agent_bay.get(session.session_id)).to_json(indent=2))
    assert found["session"] == {"session_id": session.session_id}
    entries = json.loads((await session.file_system.list_directory(".")).to_json())["entries"]
    assert "f" in [entry["name"] for entry in entries]
    assert json.loads((await session.code.run_code("1 + 1", "python")).to_json())["success"]
    assert (await session.set_lifecycle(LifecyclePolicy(max_runtime=10))).to_dict()["data"].startswith("20")
    assert "session_ids" in (await session.agent_bay.list()).to_dict()


async def test_a_listing_is_iterable(bay: AsyncAgentBay, session: AsyncSession) -> None:
    """What `list` returns can be iterated over."""
    assert session.session_id in [item["sessionId"] async for item in bay.list()]
