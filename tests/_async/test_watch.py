"""Changes of files: polled, pushed, by callback and by iterator."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import pytest

from agentbay import AsyncAgentBay, AsyncSession, AsyncWatch, Config, FileChangeEvent, FileError, ToolError
from agentbay._async.ws_client import Listener
from agentbay._concurrency import async_run_blocking, async_sleep
from agentbay._transport.subscription import drop_redundant_modifies
from agentbay._websocket import AsyncQueue
from tests import cutting
from tests.scripted import Service, tool_says
from tests.scripted_ws import Peer, WsServer

HOME = "/home/wuying"
NEVER = 3600.0  # seconds between two looks, for a watch that shall live of pushes alone


@pytest.fixture
async def session(session: AsyncSession) -> AsyncSession:
    await session.file_system.create_directory("w")
    return session


async def kinds(session: AsyncSession) -> list[tuple[str, str, str]]:
    result = (await session.file_system._get_file_change("w")).unwrap()
    return [(event.event_type, event.path.removeprefix(f"{HOME}/w/"), event.path_type) for event in result.events]


async def test_each_change_is_reported_once(session: AsyncSession) -> None:
    """Each change is reported exactly once."""
    files = session.file_system
    assert await kinds(session) == []
    await files.write_file("w/new", "1")
    assert await kinds(session) == [("create", "new", "file"), ("modify", "new", "file")]
    for _ in range(10):  # the same size, and perhaps within one tick of the clock
        await files.write_file("w/new", "2")
        assert await kinds(session) == [("modify", "new", "file")]
        await session.command.run("echo x > w/new; printf 2 > w/new")
        assert await kinds(session) == [("modify", "new", "file")]
    assert await kinds(session) == []


async def test_directories_and_moves(session: AsyncSession) -> None:
    """A move is a deletion and a creation, of directories too."""
    files = session.file_system
    await files.write_file("w/old/file", "1")
    assert await kinds(session) == []
    await files.move_file("w/old", "w/young")
    assert await kinds(session) == [
        ("delete", "old", "directory"),
        ("delete", "old/file", "file"),
        ("create", "young", "directory"),
        ("create", "young/file", "file"),
    ]
    await files.delete_file("w/young")
    await files.write_file("w/young", "1")
    assert await kinds(session) == [
        ("delete", "young", "directory"),
        ("create", "young", "file"),
        ("modify", "young", "file"),
        ("delete", "young/file", "file"),
    ]


async def test_results(session: AsyncSession) -> None:
    """Changes are sorted by kind, and a missing directory fails."""
    files = session.file_system
    await session.command.run("touch w/a w/b")
    await files._get_file_change("w")
    await session.command.run("echo x > w/a; rm w/b; touch w/c; mkdir w/d")
    result = (await files._get_file_change("w")).unwrap()
    assert result.has_changes()
    assert result.get_modified_files() == [f"{HOME}/w/a"]
    assert result.get_deleted_files() == [f"{HOME}/w/b"]
    assert result.get_created_files() == [f"{HOME}/w/c"]
    missing = await files._get_file_change("none")
    assert isinstance(missing.exception, FileError)
    await files.delete_file("w")
    assert len((await files._get_file_change("w")).events) == 3
    assert not await files._get_file_change("w")


async def test_watch_loses_nothing_at_its_start(session: AsyncSession) -> None:
    """Changes right after the start are reported, and `stop` ends iteration."""
    async with session.file_system.watch("w", interval=NEVER) as changes:
        for number in range(10):
            await session.file_system.write_file(f"w/{number}", "x")
        seen = []
        async for change in changes:
            seen.append(change.path)
            if len(seen) == 10:
                changes.stop()
        assert seen == [f"{HOME}/w/{number}" for number in range(10)]
        assert [change async for change in changes] == []


@pytest.mark.parametrize("path", [".", "./plain//x/.", "plain/y/../x", "~/plain/x/"])
async def test_paths_of_events_are_plain(session: AsyncSession, path: str) -> None:
    """Events and searches tell paths as every other call does, however the directory was named."""
    files = session.file_system
    await session.command.run("rm -rf plain; mkdir -p plain/x plain/y")
    async with files.watch(path) as changes:
        await files.write_file("plain/x/new", "1")
        async for change in changes:
            assert change.path == "/home/wuying/plain/x/new"
            break
    assert (await files.search_files(path, "new")).matches == ["/home/wuying/plain/x/new"]


async def test_watches_of_one_directory(session: AsyncSession) -> None:
    """Several watches of one directory each get every change."""
    files = session.file_system
    async with files.watch("w", interval=NEVER) as first:
        await files.write_file("w/1", "x")
        async with files.watch("w", interval=NEVER) as second:
            await files.write_file("w/2", "x")
            assert await next_names(second, 1) == ["2"]
        await files.write_file("w/3", "x")
        assert await next_names(first, 3) == ["1", "2", "3"]
    await files.write_file("w/4", "x")
    async with files.watch("w", interval=NEVER) as third:
        await files.write_file("w/5", "x")
        assert await next_names(third, 1) == ["5"]


async def next_names(changes: AsyncWatch, count: int) -> list[str]:
    """Return the names of the next changes."""
    end = time.monotonic() + 60
    while len(changes._pending) < count:
        found = await changes._next_batch(end - time.monotonic())
        assert found is not None, "it has ended"
        assert found or time.monotonic() < end, "nothing more came"
        changes._pending.extend(drop_redundant_modifies(found))
    return [changes._pending.popleft().path.rpartition("/")[2] for _ in range(count)]


@pytest.mark.parametrize("place", ["", "/none"], ids=["none", "refused"])
async def test_watch_without_a_websocket(session: AsyncSession, place: str) -> None:
    """Without a WebSocket, changes are polled."""
    session.ws_url = session.ws_url + place if place else ""
    async with session.file_system.watch("w", interval=0.05) as changes:
        for number in range(3):
            await session.file_system.write_file(f"w/{number}", "x")
            assert await next_names(changes, 1) == [f"{number}"]


async def test_watch_over_a_connection_that_is_cut() -> None:
    """No change is lost or repeated over a connection that breaks."""
    writing = 'for i in $(seq 1000 1119); do : > "w/$i"; sleep 0.01; done'
    with cutting.runtime() as port, cutting.CuttingProxy(port, []) as proxy:
        async with (
            AsyncAgentBay(cutting.KEY, Config(endpoint=f"http://127.0.0.1:{proxy.port}")) as bay,
            bay.session() as session,
        ):
            await session.file_system.create_directory("w")
            async with session.file_system.watch("w", interval=NEVER) as changes:
                await session.command.start(writing)
                seen = []
                for number in range(120):
                    if number in (10, 40, 70):
                        proxy.cut()
                    seen += await next_names(changes, 1)
                assert seen == [f"{number}" for number in range(1000, 1120)]
                proxy.cut()
                await session.file_system.delete_file("w/1000")
                assert await next_names(changes, 1) == ["1000"]


async def test_service_that_numbers_nothing() -> None:
    """Without numbers, missed changes are polled once after a reconnection."""

    def script(peer: Peer) -> None:
        asked = peer.receive()
        assert asked["data"]["method"] == "subscribe_file_change"
        assert asked["data"]["params"]["path"] == "w"
        peer.reply(asked, method="subscribe_file_change", phase="end", status="finished")
        peer.push("wuying_filesystem", eventType="file_change", path="w", events=[{"path": f"pushed {peer.number}"}])
        if peer.number == 1:
            peer.drop()
        assert peer.receive()["data"]["method"] == "unsubscribe_file_change"

    with WsServer(script) as server, Service(tool_says('[{"path": "asked for"}]')) as service:
        async with AsyncAgentBay("akm-test", Config(endpoint=service.url)) as bay:
            session = AsyncSession(bay, "session-x")
            session.ws_url, session.token = server.url, "token-x"
            async with session.file_system.watch("w", interval=NEVER) as changes:
                seen = await next_names(changes, 3)
            assert sorted(seen) == ["asked for", "pushed 1", "pushed 2"]
            assert service.count() == 2


async def test_unread_changes_are_bounded(session: AsyncSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unread changes are kept up to a limit, then an error says so."""
    monkeypatch.setattr(sys.modules[AsyncWatch.__module__], "_MAX_UNREAD_CHANGES", 100)
    async with session.file_system.watch("w", interval=NEVER) as changes:
        await session.command.run("cd w; touch $(seq 3000)")
        with pytest.raises(FileError, match="more than 100"):
            await next_names(changes, 3000)


async def test_watch_says_when_there_is_nothing_to_watch(session: AsyncSession) -> None:
    """A missing directory is an error from the first step."""
    with pytest.raises(FileError, match="none"):
        async for _ in session.file_system.watch("none"):
            pass


async def test_watch_directory(session: AsyncSession) -> None:
    """The thread reports changes after `ready_event` and survives its callback's errors."""
    seen: list[FileChangeEvent] = []

    def note(events: list[FileChangeEvent]) -> None:
        seen.extend(events)
        raise RuntimeError("of the user's")

    stop = threading.Event()
    thread = session.file_system.watch_directory("w", note, 0.05, stop)
    assert (thread.is_alive(), thread.daemon, thread.stop_event) == (False, True, stop)
    thread.start()
    assert await async_run_blocking(thread.ready_event.wait, 60)
    # A new file that is seen before its content is reported a second time, as modified.
    for name in ("one", "two"):
        await session.file_system.write_file(f"w/{name}", "1")
        while ("create", f"{HOME}/w/{name}") not in [(event.event_type, event.path) for event in seen]:
            await async_sleep(0.02)
    stop.set()
    await async_run_blocking(thread.join, 60)
    assert not thread.is_alive()


async def test_watch_directory_ends_with_the_session(bay: AsyncAgentBay) -> None:
    """The thread ends when its session is gone."""
    async with bay.session() as session:
        thread = session.file_system.watch_directory("/tmp", print, 0.05)
        thread.start()
        assert await async_run_blocking(thread.ready_event.wait, 60)
    await async_run_blocking(thread.join, 60)
    assert thread.stop_event.is_set()
    assert not thread.is_alive()


async def test_changes_are_pushed_to_who_subscribes(session: AsyncSession) -> None:
    """A subscriber gets each change once, until it unsubscribes."""
    target, path = "wuying_filesystem", f"{HOME}/w"
    pushes: AsyncQueue[dict[str, Any]] = AsyncQueue()
    link = await session.ws.websocket()
    link.add_listener(Listener(target, pushes.put, lambda _: None))
    stream = await session.ws.stream(target, {"method": "subscribe_file_change", "params": {"path": path}}, 60)
    assert (await stream.wait_end())["status"] == "finished"
    for kinds_of_push in (("create", "modify"), ("modify",)):
        await session.file_system.write_file(f"{path}/x", "new" * len(kinds_of_push))
        events = [{"eventType": kind, "path": f"{path}/x", "pathType": "file"} for kind in kinds_of_push]
        push = await pushes.get(60)
        assert (push["eventType"], push["path"], push["events"]) == ("file_change", path, events)
    assert await kinds(session) == []
    await link.send(target, {"method": "unsubscribe_file_change", "params": {"path": path}})
    for wrong in ({"path": "/none"}, {"path": 1}, {}):
        stream = await session.ws.stream(target, {"method": "subscribe_file_change", "params": wrong}, 60)
        with pytest.raises(ToolError):
            await stream.wait_end()  # by then what was said before is done
    await session.file_system.write_file(f"{path}/y", "1")
    await async_sleep(0.5)
    assert pushes.get_or_none() is None
