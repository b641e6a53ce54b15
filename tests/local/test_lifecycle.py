"""The states of a session: allowed transitions, refused ones, and races."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import websockets.exceptions
from websockets.sync.client import connect

from agentbay.errors import ConflictError, ServerError
from agentbay.local.sandbox.service.manager import SandboxManager, SandboxSpec
from agentbay.local.sandbox.shared.file_protocol import WriteFile
from agentbay.local.sessions.lifecycle import Lifecycle, SessionState
from agentbay.local.sessions.session import Session
from agentbay.local.sessions.time_limits import TimeLimits
from tests.local.raw import Refused, Wire
from tests.local.traces import eventually, mounts_with, processes_with, unique_seconds

TRANSITIONS = {
    ("CREATING", "RUNNING"), ("CREATING", "DELETING"),
    ("RUNNING", "PAUSING"), ("RUNNING", "DELETING"),
    ("PAUSING", "PAUSED"), ("PAUSING", "RUNNING"), ("PAUSING", "DELETING"),
    ("PAUSED", "RESUMING"), ("PAUSED", "DELETING"),
    ("RESUMING", "RUNNING"), ("RESUMING", "PAUSED"), ("RESUMING", "DELETING"),
    ("DELETING", "FINISH"),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after"), list(itertools.product(SessionState, list(SessionState)[1:])))
def test_every_transition(before: SessionState, after: SessionState):
    """Allowed transitions happen, and others are refused without effect."""
    lifecycle = Lifecycle(TimeLimits())
    lifecycle.state = before
    if (before.value, after.value) in TRANSITIONS:
        lifecycle.transition_to(after)
        assert lifecycle.state is after
        return
    with pytest.raises(ConflictError) as refused:
        lifecycle.transition_to(after)
    assert refused.value.code == "IncorrectStatus.Session"
    assert before.value in str(refused.value)
    assert lifecycle.state is before


async def test_pause_during_an_operation(tmp_path: Path):
    """An operation that meets a pause half-way is refused as on a paused session."""
    sandboxes = await SandboxManager.start()
    try:
        session = Session(directory=tmp_path, session_id="s", image_id="i", labels={}, time_limits=TimeLimits())
        session.start(await sandboxes.create(SandboxSpec(root=tmp_path)))

        async def write_when_paused() -> None:
            with session.using() as sandbox:
                session.lifecycle.transition_to(SessionState.PAUSING)
                await session.pause()
                await sandbox.run_file_operation(WriteFile(path="a", mode="overwrite"), input=b"x")

        with pytest.raises(ConflictError) as refused:
            await write_when_paused()
        assert refused.value.code == "IncorrectStatus.Session"
    finally:
        await sandboxes.close()


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Let nothing be opened in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_transitions_that_fail(tmp_path: Path):
    """A pause or resumption that fails or is cancelled leaves the session in the state before, and usable."""
    sandboxes = await SandboxManager.start()
    try:
        session = Session(directory=tmp_path, session_id="s", image_id="i", labels={}, time_limits=TimeLimits())
        sandbox = await sandboxes.create(SandboxSpec(root=tmp_path))
        session.start(sandbox)
        counting = asyncio.ensure_future(sandbox.run(["bash", "-c", "while :; do echo x >> count; done"]))

        async def check_running() -> None:
            assert session.lifecycle.state is SessionState.RUNNING
            assert (await sandbox.run(["echo", "fine"])).stdout == b"fine\n"

        session.lifecycle.transition_to(SessionState.PAUSING)
        with no_descriptors_left(), pytest.raises(ServerError, match="Too many open files"):
            await session.pause()
        await check_running()

        cancelled = 0
        while not cancelled:  # a machine at rest may freeze so fast that nothing is left to cancel
            session.lifecycle.transition_to(SessionState.PAUSING)
            pausing = asyncio.ensure_future(session.pause())
            await asyncio.sleep(0)
            pausing.cancel()
            await asyncio.wait([pausing])
            cancelled += pausing.cancelled()
            if not pausing.cancelled():
                assert session.lifecycle.state is SessionState.PAUSED
                session.lifecycle.transition_to(SessionState.RESUMING)
                await session.resume()
        await check_running()

        session.lifecycle.transition_to(SessionState.PAUSING)
        await session.pause()
        session.lifecycle.transition_to(SessionState.RESUMING)
        with no_descriptors_left(), pytest.raises(ServerError, match="Too many open files"):
            await session.resume()
        assert session.lifecycle.state is SessionState.PAUSED
        session.lifecycle.transition_to(SessionState.RESUMING)
        await session.resume()
        await check_running()
        counting.cancel()
    finally:
        await sandboxes.close()


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(Refused) as refused:
        call()
    return refused.value.code


@pytest.fixture(scope="module")
def paused(wire: Wire) -> Iterator[str]:
    with wire.session() as session:
        wire.data("PauseSessionAsync", SessionId=session)
        yield session


def test_any_tool_of_a_paused_session(wire: Wire, paused: str):
    """Every tool is refused on both routes, unknown ones too."""
    found = wire.data("GetSession", SessionId=paused)
    names = [tool["name"] for tool in json.loads(found["ToolList"])]
    assert len(names) > 20
    for name in (*names, "no_such_tool"):
        assert refusal(lambda name=name: wire.tool(paused, name)) == "IncorrectStatus.Session"
        call = {"tool": name, "args": {}, "server": "", "requestId": "r", "token": found["Token"]}
        headers = {"x-access-token": found["Token"]}
        answer = wire.http.post(found["LinkUrl"] + "/callTool", json=call, headers=headers)
        assert (answer.status_code, answer.json()["Code"]) == (400, "IncorrectStatus.Session")


def test_any_other_call_on_a_paused_session(wire: Wire, paused: str):
    """Work is refused on links and WebSockets too, and queries are answered."""
    for action, fields in (
        ("PauseSessionAsync", {}),
        ("SyncContext", {}),
        ("BindContexts", {"PersistenceDataList": [{"ContextId": "c", "Path": "/p"}]}),
    ):
        assert refusal(lambda a=action, f=fields: wire.data(a, SessionId=paused, **f)) == "IncorrectStatus.Session"
    found = wire.data("GetSession", SessionId=paused)
    token = {"x-access-token": found["Token"]}
    with (
        pytest.raises(websockets.exceptions.InvalidStatus) as refused,
        connect(found["WsUrl"], additional_headers=token),
    ):
        pass
    assert refused.value.response.status_code == 400
    link = wire.data("GetLink", SessionId=paused, ProtocolType="https", Port=30150)["Url"]
    assert wire.http.get(link).status_code == 400
    for action in ("GetSessionDetail", "GetMcpResource", "GetLabel", "RefreshSessionIdleTime", "GetContextInfo"):
        wire.data(action, SessionId=paused)
    wire.data("SetLabel", SessionId=paused, Labels={"a": "b"})
    assert wire.status(paused) == "PAUSED"


def test_pause_holds_all_timers(wire: Wire):
    """Neither idle time nor age grows while a session is paused."""
    paused = []
    for times in {"Timeout": 4}, {"Timeout": 1, "MaxRuntime": 1}:  # the second pair in minutes
        paused.append(wire.create(**times))
        wire.data("PauseSessionAsync", SessionId=paused[-1])
    idle, longest = paused
    awake = wire.create(Timeout=4)
    assert eventually(lambda: wire.status(awake) == "FINISH")
    assert [wire.status(session) for session in (idle, longest)] == ["PAUSED", "PAUSED"]
    wire.data("ResumeSessionAsync", SessionId=idle)
    assert wire.status(idle) == "RUNNING"
    assert eventually(lambda: wire.status(idle) == "FINISH")
    wire.data("DeleteSessionAsync", SessionId=longest)


def test_pause_stops_the_clock():
    """The maximum age is reached later by as long as the session was paused."""
    lifecycle = Lifecycle(TimeLimits(None, 100.0))
    for state in SessionState.RUNNING, SessionState.PAUSING, SessionState.PAUSED:
        lifecycle.transition_to(state)
    left = lifecycle.seconds_until_expiry()
    time.sleep(0.05)
    assert lifecycle.seconds_until_expiry() == left
    lifecycle.transition_to(SessionState.RESUMING)
    lifecycle.transition_to(SessionState.RUNNING)
    assert left is not None
    assert 0 <= left - (lifecycle.seconds_until_expiry() or 0.0) < 50
    assert lifecycle.seconds_until_expiry() != left


def at_once(wire: Wire, *actions: tuple[str, str]) -> list[str]:
    """Send actions at the same time, and return the error codes, "" for success."""
    start = threading.Barrier(len(actions))

    def send(action: str, session: str) -> str:
        other = Wire(wire.url)
        with other.http:
            start.wait(60)
            try:
                other.data(action, SessionId=session)
            except Refused as refused:
                return refused.code
        return ""

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(send, *zip(*actions, strict=True)))


@pytest.mark.parametrize("first", ["PauseSessionAsync", "ResumeSessionAsync"])
def test_deletion_races_with_a_change(wire: Wire, first: str):
    """A deletion wins a race with a pause or a resumption."""
    for _ in range(8):
        marker = unique_seconds()
        session = wire.create()
        wire.stdout(session, f"setsid sleep {marker} >/dev/null 2>&1 &")
        if first == "ResumeSessionAsync":
            wire.data("PauseSessionAsync", SessionId=session)
        change, deletion = at_once(wire, (first, session), ("DeleteSessionAsync", session))
        assert deletion == ""
        assert change in ("", "InvalidMcpSession.NotFound", "IncorrectStatus.Session")
        assert eventually(lambda s=session: wire.status(s) == "FINISH")
        assert eventually(lambda m=marker: processes_with(m) == [])
        assert mounts_with(session) == []


def test_two_pauses_at_once(wire: Wire, session: str):
    """Of two simultaneous pauses or resumptions, one is refused."""
    for action, state in (("PauseSessionAsync", "PAUSED"), ("ResumeSessionAsync", "RUNNING")):
        assert sorted(at_once(wire, (action, session), (action, session))) == ["", "IncorrectStatus.Session"]
        assert wire.status(session) == state


def test_pauses_while_sessions_are_made(wire: Wire):
    """A session is complete although others pause it as soon as it is listed."""
    label = {"race": os.urandom(6).hex()}
    stop = threading.Event()

    def disturb() -> None:
        other = Wire(wire.url)
        with other.http:
            while not stop.is_set():
                for item in other.data("ListSession", Labels=label, MaxResults=100):
                    for action in ("PauseSessionAsync", "ResumeSessionAsync", "PauseSessionAsync"):
                        with contextlib.suppress(Refused):
                            other.data(action, SessionId=item["SessionId"])

    def make(_: int) -> str:
        other = Wire(wire.url)
        with other.http:
            return other.create(Labels=label)

    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(make, range(12)))
    finally:
        stop.set()
        disturbing.join(60)
    for session in made:
        if wire.status(session) == "PAUSED":
            wire.data("ResumeSessionAsync", SessionId=session)
        assert wire.stdout(session, "echo whole") == "whole\n"
        wire.data("DeleteSessionAsync", SessionId=session)


def test_deletion_closes_streams_and_links(wire: Wire):
    """A deletion closes WebSockets, and invalidates links and tokens."""
    session = wire.create()
    found = wire.data("GetSession", SessionId=session)
    serve = "python3 -m http.server 30150 --bind 127.0.0.1"
    wire.stdout(session, f"setsid {serve} >/dev/null 2>&1 &")
    link = wire.data("GetLink", SessionId=session, ProtocolType="https", Port=30150)["Url"]
    assert eventually(lambda: wire.http.get(link).status_code == 200)
    with connect(found["WsUrl"], additional_headers={"x-access-token": found["Token"]}) as stream:
        wire.data("DeleteSessionAsync", SessionId=session)
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            stream.recv(60)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
    assert wire.http.get(link).status_code == 400
    with (
        pytest.raises(websockets.exceptions.InvalidStatus),
        connect(found["WsUrl"], additional_headers={"x-access-token": found["Token"]}),
    ):
        pass
    answer = wire.http.post(found["LinkUrl"] + "/callTool", json={}, headers={"x-access-token": found["Token"]})
    assert (answer.status_code, answer.json()["Code"]) == (400, "InvalidMcpSession.NotFound")


def test_links_end(wire: Wire, session: str):
    """A link with another expiry than the signed one is refused."""
    link = wire.data("GetLink", SessionId=session, ProtocolType="https", Port=30150)["Url"]
    _, port, expires, _ = link.split("/")[4].split(".")
    assert (port, 24 * 3600 <= int(expires) - time.time() <= 48 * 3600) == ("30150", True)
    assert wire.http.get(link).status_code == 502  # nobody listens there
    for other in (str(int(expires) + 1), "0", "x", "²"):
        assert wire.http.get(link.replace(f".{expires}.", f".{other}.")).status_code == 404
