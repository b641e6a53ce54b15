"""Cancelling asynchronous calls.

It always takes effect, and loses no semaphore slot, connection or session.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import agentbay._async.router as router_module
from agentbay import AsyncAgentBay, ConnectionFailed, CreateSessionParams
from tests._async.calls import CALLS, Call, client, handle
from tests.scripted import (
    NOT_FOUND,
    Behaviour,
    Peer,
    Service,
    endless,
    eventually,
    late,
    ok,
    refused,
    silence,
    then_close,
    when,
)

FOUND = ok({"SessionId": "session-x", "Status": "RUNNING"})
CREATED = ok({"SessionId": "session-1"})
GONE: dict[str, Any] = {"DeleteSessionAsync": ok(), "GetSessionDetail": NOT_FOUND}


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def _arrived(service: Service, count: int = 1) -> None:
    await asyncio.to_thread(eventually, lambda: service.count() >= count)


@pytest.mark.parametrize("call", [call for call in CALLS if call.name != "session()"], ids=lambda call: call.name)
async def test_every_method(call: Call) -> None:
    """Cancelling any call raises CancelledError and closes its connection."""
    with Service(silence) as service:
        async with client(service.url, 30) as bay:
            task = asyncio.ensure_future(call.make(bay, handle(bay, service.url if call.direct else "")))
            await _arrived(service)
            await _cancelled(task)
            await asyncio.to_thread(eventually, lambda: service.open_now == 0)


@pytest.mark.parametrize("method", ["pause", "resume", "delete"])
async def test_while_waiting(method: str) -> None:
    """A call can be cancelled between two polls."""
    looks = {"GetSession": ok({"Status": "X"}), "GetSessionDetail": ok({"Status": "X"})}
    script = {"PauseSessionAsync": ok(), "ResumeSessionAsync": ok(), "DeleteSessionAsync": ok(), **looks}
    with Service(script) as service:
        async with client(service.url, 30) as bay:
            task = asyncio.ensure_future(getattr(handle(bay), method)())
            await _arrived(service, 6)
            await _cancelled(task)


async def test_while_pausing_before_a_retry() -> None:
    """A call can be cancelled during the backoff before a retry."""
    with Service(refused("Throttling", 429, {"Retry-After": "20"})) as service:
        async with client(service.url, 30) as bay:
            task = asyncio.ensure_future(bay.get("session-x"))
            await _arrived(service)
            await asyncio.sleep(0.05)
            await _cancelled(task)


def _never_shakes_hands(peer: Peer) -> None:
    peer.receive()
    peer.receive()


PHASES: dict[str, tuple[Behaviour, dict[str, Any]]] = {
    "handshake": (FOUND, {"accepting": _never_shakes_hands}),
    "head": (silence, {}),
    "in the head": (endless(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.01), {}),
    "body": (endless(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b" ", 0.01), {}),
}


@pytest.mark.parametrize("phase", PHASES)
async def test_slot_is_released(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled call frees its slot and closes its connection."""
    monkeypatch.setattr(router_module, "MAX_CONNECTIONS", 2)
    behaviour, options = PHASES[phase]
    with Service(behaviour, **options) as service, Service(FOUND) as fine:
        address = service.url.replace("http:", "https:") if phase == "handshake" else service.url
        async with client(fine.url, 30) as bay:
            good = bay.client.settings
            for _ in range(5):
                bay.client.settings = good._replace(url=address)
                tasks = [asyncio.ensure_future(bay.get("x")) for _ in range(2)]
                await asyncio.to_thread(eventually, lambda: service.open_now == 2)
                await asyncio.sleep(0.03)
                for task in tasks:
                    await _cancelled(task)
                bay.client.settings = good
                assert (await bay.get("x")).success
            await asyncio.to_thread(eventually, lambda: service.open_now == 0)


async def test_waiting_for_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call waiting for a slot can be cancelled, and times out unsent."""
    monkeypatch.setattr(router_module, "MAX_CONNECTIONS", 1)
    free = threading.Event()
    with Service(when(free, FOUND)) as service:
        async with client(service.url, 30, max_retries=0) as bay:
            first = asyncio.ensure_future(bay.get("x"))
            await _arrived(service)
            waiting = asyncio.ensure_future(bay.get("x"))
            await asyncio.sleep(0.02)
            await _cancelled(waiting)
            bay.client.settings = bay.client.settings._replace(timeout=0.2)
            assert isinstance((await bay.create()).exception, ConnectionFailed)
            free.set()
            assert (await first).success
            assert (await bay.get("x")).success
        assert service.count() == 2


async def test_random_cancelling(monkeypatch: pytest.MonkeyPatch) -> None:
    """After hundreds of cancelled calls every slot of the pool is free."""
    monkeypatch.setattr(router_module, "MAX_CONNECTIONS", 3)
    with Service(late(0.002, FOUND)) as service:
        async with client(service.url, 30) as bay:
            for number in range(300):
                tasks = [asyncio.ensure_future(bay.get("x")) for _ in range(6)]
                await asyncio.sleep((number % 40) / 10_000)
                for task in tasks[::2]:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            peak = await asyncio.gather(*(bay.get("x") for _ in range(9)))
            assert all(result.success for result in peak)
            await asyncio.to_thread(eventually, lambda: service.open_now <= 3)  # it may not have seen the last end yet


async def test_as_many_as_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool never exceeds its limit, and reuses the last connection first."""
    monkeypatch.setattr(router_module, "MAX_CONNECTIONS", 4)
    with Service(late(0.01, FOUND)) as service:
        async with client(service.url) as bay:
            assert all(result.success for result in await asyncio.gather(*(bay.get("x") for _ in range(40))))
            assert service.connections == 4
            last = service.requests[-1].connection
            for _ in range(3):
                assert (await bay.get("x")).success
            assert len({request.connection for request in service.requests[-3:]}) == 1
            assert last in range(1, 5)


async def _hold(bay: AsyncAgentBay, inside: asyncio.Event) -> None:
    async with bay.session(CreateSessionParams()):
        inside.set()
        await asyncio.sleep(60)


async def test_inside_a_block() -> None:
    """A cancelled block deletes its session first."""
    with Service({"CreateMcpSession": CREATED, **GONE}) as service:
        async with client(service.url) as bay:
            inside = asyncio.Event()
            task = asyncio.ensure_future(_hold(bay, inside))
            await inside.wait()
            await _cancelled(task)
        assert service.count("DeleteSessionAsync") == 1


async def test_while_creating() -> None:
    """A block cancelled while creating its session deletes it."""
    with Service({"CreateMcpSession": late(0.2, CREATED), **GONE}) as service:
        async with client(service.url) as bay:
            task = asyncio.ensure_future(_hold(bay, asyncio.Event()))
            await _arrived(service)
            await _cancelled(task)
        assert service.count("DeleteSessionAsync") == 1


async def test_while_deleting() -> None:
    """A block cancelled twice still deletes its session."""
    script = {"CreateMcpSession": CREATED, "DeleteSessionAsync": late(0.2, ok()), "GetSessionDetail": NOT_FOUND}
    with Service(script) as service:
        async with client(service.url) as bay:
            inside = asyncio.Event()
            task = asyncio.ensure_future(_hold(bay, inside))
            await inside.wait()
            task.cancel()
            await _arrived(service, 2)
            await _cancelled(task)
        assert service.count("GetSessionDetail") == 1


@pytest.mark.parametrize("behaviour", [refused(), then_close(ok("nonsense"))])
async def test_block_that_cannot_delete(behaviour: Behaviour) -> None:
    """A cancellation passes even if the session cannot be deleted."""
    with Service(
        {"CreateMcpSession": CREATED, "DeleteSessionAsync": behaviour, "GetSessionDetail": refused()}
    ) as service:
        async with client(service.url, max_retries=0) as bay:
            inside = asyncio.Event()
            task = asyncio.ensure_future(_hold(bay, inside))
            await inside.wait()
            await _cancelled(task)


async def test_timeout_around_a_block() -> None:
    """`asyncio.timeout` around a block deletes its session and raises TimeoutError."""
    with Service({"CreateMcpSession": CREATED, **GONE}) as service:
        async with client(service.url) as bay:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await _hold(bay, asyncio.Event())
        assert service.count("DeleteSessionAsync") == 1


async def test_the_loop_is_not_blocked() -> None:
    """The loop goes on while a hundred calls wait."""
    with Service(late(0.3, FOUND)) as service:
        async with client(service.url) as bay:
            calls = asyncio.gather(*(bay.get("x") for _ in range(100)))
            turns = 0
            while not calls.done():
                await asyncio.sleep(0.005)
                turns += 1
            await calls
    assert turns > 5, "each of a hundred calls that blocks takes all turns while it waits"


async def test_commands_hold_up_no_other_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """While as many commands run as may, other calls are answered, and the next command follows the first that ends."""
    monkeypatch.setattr(router_module, "MAX_LONG_CALLS", 2)
    async with AsyncAgentBay.local() as bay, bay.session() as session:
        running = [asyncio.ensure_future(session.command.run("until [ -e go ]; do sleep 0.05; done")) for _ in range(3)]
        while len(await session.command.list()) or not (await session.get_status()).success:
            await asyncio.sleep(0.05)
        assert not any(task.done() for task in running)
        assert (await session.file_system.write_file("go", "")).success
        assert [result.exit_code for result in await asyncio.gather(*running)] == [0, 0, 0]
