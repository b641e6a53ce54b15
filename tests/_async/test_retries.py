"""Which calls are retried, when, and which never are."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from agentbay import ConnectionFailed, ConnectionLost, DeadlineExceeded, RateLimitError, ServiceUnavailableError
from tests.scripted import NOT_FOUND, Behaviour, Service, hang_up, late, nobody, ok, refused, reset, silence, then_close

from .calls import client, handle

FOUND = ok({"SessionId": "session-x", "Status": "RUNNING"})
UNPROCESSED = [
    refused("Throttling.User", 429),
    refused("Throttling", 400),
    refused("ServiceUnavailable", 503, {"Retry-After": "0"}),
    refused("ServiceUnavailable", 503, {"x-acs-retry-after": "0"}),
]
LOST = [hang_up, reset, refused("InternalError", 500), refused("ServiceUnavailable", 503)]


@pytest.mark.parametrize("max_retries", [0, 1, 2, 4])
async def test_how_often(max_retries: int) -> None:
    """A call is retried `max_retries` times, then fails with the last error."""
    with Service(refused("Throttling", 429, {"Retry-After": "0"})) as service:
        async with client(service.url, max_retries=max_retries) as bay:
            assert isinstance((await bay.create()).exception, RateLimitError)
    assert service.count() == 1 + max_retries


@pytest.mark.parametrize("behaviour", UNPROCESSED)
async def test_unprocessed_is_repeated(behaviour: Behaviour) -> None:
    """A request that was refused unprocessed is always retried."""
    with Service({"PauseSessionAsync": [behaviour, ok()], "GetSession": [behaviour, FOUND]}) as service:
        async with client(service.url) as bay:
            assert (await handle(bay).pause_async()).success
            assert (await bay.get("session-x")).success
    assert service.count() == 4


@pytest.mark.parametrize("behaviour", LOST)
async def test_lost_call_is_retried_only_if_idempotent(behaviour: Behaviour) -> None:
    """A lost call is retried only if it is idempotent."""
    script: Any = {
        "GetSession": [behaviour, FOUND],
        "CreateMcpSession": behaviour,
        "CallMcpTool": behaviour,
        "PauseSessionAsync": behaviour,
        "ResumeSessionAsync": behaviour,
    }
    with Service(script) as service:
        async with client(service.url) as bay:
            assert (await bay.get("session-x")).success
            assert not (await bay.create()).success
            session = handle(bay)
            assert not (await session.call_mcp_tool("my_tool", {})).success
            assert not (await session.pause(timeout=60)).success
            assert not (await session.resume(timeout=60)).success
    assert service.count("GetSession") == 2
    assert all(service.count(action) == 1 for action in script if action != "GetSession")


@pytest.mark.parametrize(
    ("advice", "least"),
    [
        ("0.3", 0.3),
        ("0", 0.0),
        ("-5", 0.0),
        ("nonsense", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 +99999999999999999999", 0.0),
        (None, 0.0),
    ],
)
@pytest.mark.parametrize("header", ["Retry-After", "x-acs-retry-after"])
async def test_retry_after(header: str, advice: str | None, least: float) -> None:
    """Retry-After is honoured, and nonsense in it ignored."""
    headers = {} if advice is None else {header: advice}
    with Service([refused("Throttling", 429, headers), FOUND]) as service:
        async with client(service.url) as bay:
            began = time.monotonic()
            assert (await bay.get("session-x")).success
            assert time.monotonic() - began >= least
    assert service.count() == 2


async def test_retry_after_as_a_date() -> None:
    """Retry-After may be a date."""
    then = datetime.now(UTC) + timedelta(seconds=2)
    behaviour = refused("Throttling", 429, {"Retry-After": format_datetime(then, usegmt=True)})
    with Service([behaviour, FOUND]) as service:
        async with client(service.url) as bay:
            assert (await bay.get("session-x")).success
    assert datetime.now(UTC) >= then.replace(microsecond=0)


@pytest.mark.parametrize("advice", ["60", "1e400", "Wed, 21 Oct 2099 07:28:00 GMT"])
async def test_no_pause_beyond_the_deadline(advice: str) -> None:
    """A backoff beyond the deadline fails at once, with the advice."""
    with Service(refused("Throttling", 429, {"Retry-After": advice})) as service:
        async with client(service.url, timeout=30) as bay:
            began = time.monotonic()
            error = (await bay.get("session-x")).exception
    assert time.monotonic() - began < 25
    assert isinstance(error, RateLimitError)
    assert error.retry_after > 30
    assert service.count() == 1


async def test_retries_share_the_time_limit() -> None:
    """All retries share the time limit of the call."""
    with Service(late(0.1, refused("InternalError", 500))) as service:
        async with client(service.url, timeout=0.5, max_retries=1000) as bay:
            began = time.monotonic()
            assert not (await bay.get("session-x")).success
    assert time.monotonic() - began < 60


async def test_call_without_an_answer() -> None:
    """A call without an answer takes its time limit and is not retried."""
    with Service(silence) as service:
        async with client(service.url, timeout=1.5) as bay:
            error = (await bay.get("session-x")).exception
    assert isinstance(error, DeadlineExceeded)
    assert isinstance(error, TimeoutError)
    assert service.count() == 1


async def test_read_timeout_of_a_tool_call() -> None:
    """A tool call waits its own read timeout, not the client's."""
    with Service(silence) as service:
        async with client(service.url, timeout=60) as bay:
            for session in (handle(bay), handle(bay, service.url)):
                began = time.monotonic()
                result = await session.call_mcp_tool("my_tool", {}, read_timeout=1500, connect_timeout=1500)
                assert time.monotonic() - began < 50
                assert isinstance(result.exception, DeadlineExceeded)


@pytest.mark.parametrize("first", [hang_up, refused("InternalError", 500)])
async def test_delete_that_was_executed(first: Behaviour) -> None:
    """NotFound on a retried deletion is success."""
    with Service({"DeleteSessionAsync": [first, NOT_FOUND], "GetSessionDetail": NOT_FOUND}) as service:
        async with client(service.url) as bay:
            assert await handle(bay).delete()
    assert service.count("DeleteSessionAsync") == 2


async def test_delete_of_nothing() -> None:
    """NotFound on the first deletion request is a failure."""
    with Service(NOT_FOUND) as service:
        async with client(service.url) as bay:
            assert not await handle(bay).delete()
    assert service.count("DeleteSessionAsync") == 1


async def test_never_sent_is_repeated() -> None:
    """A call on an idle connection that was closed is sent again."""
    with Service({"CreateMcpSession": then_close(ok({"SessionId": "s"})), "CallMcpTool": ok({})}) as service:
        async with client(service.url, max_retries=0) as bay:
            for _ in range(20):
                assert (await bay.create()).success
                service.close_all()
                time.sleep(0.001)  # without the loop: it has not seen the end of the connection
    assert service.count() == service.connections == 20


async def test_nobody_listens() -> None:
    """A refused connection is a ConnectionFailed that says nothing was sent."""
    with nobody() as url:
        async with client(url, max_retries=0) as bay:
            error = (await bay.create()).exception
    assert isinstance(error, ConnectionFailed)
    assert error.retryable
    assert not isinstance(error, ConnectionLost)
    assert "Nothing was sent" in str(error)


async def test_503_says_when() -> None:
    """The error of an overloaded service carries its Retry-After."""
    with Service(refused("ServiceUnavailable", 503, {"Retry-After": "7"})) as service:
        async with client(service.url, max_retries=0) as bay:
            error = (await bay.create()).exception
    assert isinstance(error, ServiceUnavailableError)
    assert error.retry_after == 7
