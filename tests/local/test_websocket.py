"""The WebSocket of a session: access, answers and end."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from agentbay.local.sessions.hub import WebSocketClient, WebSocketHub
from tests.local.raw import Child, Wire
from tests.local.traces import PATIENCE, eventually


@contextmanager
def talking(wire: Wire, session: str, **headers: str) -> Iterator[ClientConnection]:
    """A connection to the session's WebSocket."""
    found = wire.data("GetSession", SessionId=session)
    sent = {"X-Access-Token": found["Token"], **headers}
    with connect(found["WsUrl"], additional_headers=sent, proxy=None, max_size=70 << 20) as made:
        yield made


def ask(connection: ClientConnection, target: str, **data: Any) -> dict[str, Any]:
    """Ask, and return the answer."""
    asked = uuid.uuid4().hex
    connection.send(json.dumps({"invocationId": asked, "source": "SDK", "target": target, "data": data}))
    while True:
        frame = json.loads(connection.recv(PATIENCE))
        if frame["invocationId"] == asked:
            assert (frame["source"], frame["target"]) == (target, "SDK")
            answer: dict[str, Any] = frame["data"]
            return answer


def until_closed(connection: ClientConnection, first: str = "") -> None:
    """Say something, and then only listen, for as long as that works."""
    if first:
        connection.send(first)
    while True:
        connection.recv(PATIENCE)


# A runtime that tells in which thread it imports the library for WebSockets.
_TELLING = """
import sys
import threading
from agentbay.local import __main__, service

def tell(event, given):
    if event == "import" and given[0] == "websockets":
        print("imported in", threading.current_thread().name, file=sys.stderr, flush=True)

sys.addaudithook(tell)
service._AHEAD_SECONDS = float(sys.argv.pop(1))
sys.exit(__main__.main())
"""


@pytest.mark.parametrize("ahead", [True, False])
def test_the_first_connection_holds_nobody_up(ahead: bool) -> None:
    """The library for WebSockets is imported while nobody calls or, with a connection before that, in a thread."""
    child = Child(["-c", _TELLING, "0" if ahead else "1000", "--log-level=warning"])
    try:
        wire = Wire(child.url)
        with wire.http:
            if ahead:
                assert eventually(lambda: child.error_lines)
            with wire.session() as session, talking(wire, session) as connection:
                assert "There is no target" in ask(connection, "nothing")["error"]
        child.close_stdin()
        assert "imported in" in child.standard_error()
        assert "MainThread" not in child.standard_error()
    finally:
        child.release()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-Access-Token": "wrong"}, 401),
        ({"X-Access-Token": ""}, 401),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_refused(wire: Wire, session: str, headers: dict[str, str], status: int) -> None:
    """Nobody gets in without this session's token, and no web page."""
    with pytest.raises(InvalidStatus) as caught, talking(wire, session, **headers):
        pass
    assert caught.value.response.status_code == status


def test_unusable_websockets(wire: Wire, session: str) -> None:
    """Unknown WebSockets, and those of unusable sessions, are refused."""
    found = wire.data("GetSession", SessionId=session)
    token = {"X-Access-Token": found["Token"]}
    for url in (found["WsUrl"] + "x", found["WsUrl"].replace("/ws/", "/other/")):
        with pytest.raises(InvalidStatus) as caught, connect(url, additional_headers=token, proxy=None):
            pass
        assert caught.value.response.status_code in (400, 404)
    wire.data("PauseSessionAsync", SessionId=session)
    with pytest.raises(InvalidStatus), talking(wire, session):
        pass
    wire.data("ResumeSessionAsync", SessionId=session)
    with talking(wire, session):
        pass


def test_answers(wire: Wire, session: str) -> None:
    """Nonsense and heartbeats are answered or ignored, and close nothing."""
    with talking(wire, session) as made:
        for junk in ('{"type":"ping"}', "nonsense", "[]", "", b"\xff", '{"invocationId": 3}', "[" * 100_000):
            made.send(junk)
        assert "no target" in ask(made, "NOBODY", method="x")["error"]
        assert "no method" in ask(made, "PTY_SERVER", method="x")["error"]
        assert "no method" in ask(made, "PTY_SERVER")["error"]
        assert "cols" in ask(made, "PTY_SERVER", method="pty.create", params={"cols": "wide"})["error"]
        assert "Invalid terminal size" in ask(made, "PTY_SERVER", method="pty.create", params={"cols": 501})["error"]
        assert "not found" in ask(made, "PTY_SERVER", method="pty.kill", params={"ptySessionId": "x"})["error"]
        assert ask(made, "PTY_SERVER", method="pty.list")["result"] == {"ptySessionId": "", "replay": "", **_NONE}


_NONE = {"ptySessionIds": [], "ptySessions": []}


def test_large_frames(wire: Wire, session: str) -> None:
    """Frames of up to 8 MiB are taken."""
    with talking(wire, session) as made:
        assert "no method" in ask(made, "PTY_SERVER", method="x", params={"text": "x" * (7 << 20)})["error"]
        with pytest.raises(ConnectionClosed):
            until_closed(made, "x" * (9 << 20))


def test_cancels_among_many_requests(wire: Wire, session: str) -> None:
    """A cancel is heard while as many requests run as may, and others wait."""

    def say(frame_id: str, **data: Any) -> str:
        return json.dumps({"invocationId": frame_id, "source": "SDK", "target": "wuying_codespace", "data": data})

    def run(code: str) -> dict[str, Any]:
        return {
            "method": "run_code",
            "mode": "stream",
            "params": {"code": code, "language": "python", "timeoutS": 3600},
        }

    with talking(wire, session) as made:
        made.send(say("sleeper", **run("import time; time.sleep(3600)")))
        others = [f"other {number}" for number in range(300)]  # more than 256, so that some wait
        for other in others:
            made.send(say(other, **run("1")))
        made.send(say(others[-1], method="run_code", mode="stream", phase="cancel"))
        made.send(say("sleeper", method="run_code", mode="stream", phase="cancel"))
        left = set(others[:-1])
        while left:
            frame = json.loads(made.recv(PATIENCE))
            if frame["data"].get("phase") == "end":
                left.remove(frame["invocationId"])
        assert "no method" in ask(made, "PTY_SERVER", method="x")["error"]


def test_messages_that_nobody_reads(wire: Wire, session: str) -> None:
    """Later messages of a request that reads none are bounded: they end it, and the others go on."""
    head = {"invocationId": "flooded", "source": "SDK", "target": "wuying_codespace"}
    params = {"code": "import time; time.sleep(3600)", "language": "python", "timeoutS": 3600}
    with talking(wire, session) as made:
        made.send(json.dumps({**head, "data": {"method": "run_code", "mode": "stream", "params": params}}))
        for _ in range(11):
            made.send(json.dumps({**head, "data": {"fill": "x" * 100_000}}))
        while "error" not in (data := json.loads(made.recv(PATIENCE))["data"]):
            pass
        assert "1 MiB of later messages" in data["error"]
        assert "no method" in ask(made, "PTY_SERVER", method="x")["error"]


def test_terminal_limit(wire: Wire, session: str) -> None:
    """Running terminals are limited, and ended ones are forgotten, the oldest first."""
    with talking(wire, session) as made:
        create = {"method": "pty.create", "params": {"shell": "sleep 600", "listening": True}}
        ids = [ask(made, "PTY_SERVER", **create)["result"]["ptySessionId"] for _ in range(64)]
        assert "64 terminals" in ask(made, "PTY_SERVER", **create)["error"]
        for pty in ids:
            ask(made, "PTY_SERVER", method="pty.kill", params={"ptySessionId": pty})
        deadline = time.monotonic() + PATIENCE
        while (listed := ask(made, "PTY_SERVER", method="pty.list")["result"])["ptySessionIds"]:
            assert time.monotonic() < deadline
        assert [item["exitCode"] for item in listed["ptySessions"]] == [-9] * 16


def test_end_of_the_session(wire: Wire, session: str) -> None:
    """When the session ends, so do its connections."""
    with talking(wire, session) as made:
        ask(made, "PTY_SERVER", method="pty.create", params={})
        wire.data("DeleteSessionAsync", SessionId=session)
        with pytest.raises(ConnectionClosed) as caught:
            until_closed(made)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1001


async def test_slow_client_does_not_hold_up_others() -> None:
    """A client that disconnects or reads nothing does not hold up the others."""
    hub, taken = WebSocketHub(), list[str]()

    async def going(_: str) -> None:
        raise RuntimeError("Unexpected ASGI message 'websocket.send', after sending 'websocket.close'.")

    async def stuck(_: str) -> None:
        await asyncio.sleep(60)

    async def fine(text: str) -> None:
        taken.append(text)

    peers = [WebSocketClient(going), WebSocketClient(stuck), WebSocketClient(fine)]
    hub.clients = dict.fromkeys(peers)
    push = asyncio.create_task(hub.broadcast("PTY_SERVER", {"eventType": "pty.exit"}))
    while not taken:
        await asyncio.sleep(0)
    assert [peer.disconnected.is_set() for peer in peers] == [True, False, False]
    push.cancel()
