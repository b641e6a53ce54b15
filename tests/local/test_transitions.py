"""Actions on a session while something else is under way."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.local.contexts.actions import create_context, sync_item
from tests.local.raw import Refused, Wire
from tests.local.traces import PATIENCE, eventually, mounts_with, processes_with, unique_seconds

FILES = 100
TOP = "/tmp/data"
# answers at once, and then says no more for a very long time
SERVER = """
import http.server, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"begun")
        time.sleep(3600)
http.server.ThreadingHTTPServer(("127.0.0.1", 30150), Handler).serve_forever()
"""


class Scene:
    """A session with something under way.

    `marker` is in the command line of one of its processes."""

    def __init__(self, wire: Wire, **fields: Any) -> None:
        self.wire, self.marker, self.context = wire, unique_seconds(), create_context(wire)
        self.session = wire.create(PersistenceDataList=[sync_item(self.context, TOP)], **fields)
        self._pool = ThreadPoolExecutor()
        self._lasting: list[Future[object]] = []

    def in_background(self, work: Callable[[Wire], object]) -> None:
        """Do something that lasts until the session ends."""

        def run() -> object:
            other = Wire(self.wire.url)
            with other.http:
                return work(other)

        self._lasting.append(self._pool.submit(run))

    def ask(self, action: str) -> str:
        """Return the code with which an action is refused, "" if it is done."""
        try:
            self.wire.data(action, SessionId=self.session)
        except Refused as refused:
            return refused.code
        return ""

    def spawn(self, program: str) -> None:
        self.wire.stdout(self.session, f"setsid {program} >/dev/null 2>&1 &")

    def runs(self) -> bool:
        return bool(processes_with(self.marker))

    def in_terminal(self, work: Callable[[ClientConnection, str], object]) -> None:
        """Open a terminal, and use it until the session ends."""

        def converse(_: Wire) -> None:
            found = self.wire.data("GetSession", SessionId=self.session)
            token = {"x-access-token": found["Token"]}
            with connect(found["WsUrl"], additional_headers=token, proxy=None) as stream:
                work(stream, say(stream, "pty.create", shell=f"sleep {self.marker}")["data"]["result"]["ptySessionId"])

        self.in_background(converse)
        assert eventually(self.runs)

    def end(self) -> None:
        """Delete the session, and check that nothing of it is left."""
        assert self.ask("DeleteSessionAsync") in ("", "InvalidMcpSession.NotFound")
        assert eventually(lambda: self.wire.status(self.session) == "FINISH")
        for work in self._lasting:
            ended = work.exception(PATIENCE)
            assert ended is None or isinstance(ended, (Refused, ConnectionClosed, httpx.TransportError)), ended
        assert eventually(lambda: not self.runs())
        assert mounts_with(self.session) == []


def say(stream: ClientConnection, method: str, **params: Any) -> dict[str, Any]:
    """Send a request to the terminals, and return the next frame."""
    data = {"method": method, "params": params}
    stream.send(json.dumps({"invocationId": method, "source": "SDK", "target": "PTY_SERVER", "data": data}))
    frame: dict[str, Any] = json.loads(stream.recv(PATIENCE))
    return frame


def a_process(scene: Scene) -> None:
    scene.spawn(f"sleep {scene.marker}")


def a_command(scene: Scene) -> None:
    scene.in_background(lambda other: other.sh(scene.session, f"sleep {scene.marker}", timeout_ms=3_600_000))
    assert eventually(scene.runs)


def a_websocket(scene: Scene) -> None:
    def listen(stream: ClientConnection, _: str) -> None:
        while True:
            stream.recv(PATIENCE)

    scene.in_terminal(listen)


def a_download(scene: Scene) -> None:
    scene.wire.text(scene.session, "write_file", path="server.py", content=SERVER)
    scene.spawn(f"python3 server.py {scene.marker}")
    url = scene.wire.data("GetLink", SessionId=scene.session, ProtocolType="https", Port=30150)["Url"]
    begun = threading.Event()

    def download(other: Wire) -> None:
        while not begun.is_set():
            with other.http.stream("GET", url) as answer:
                for _ in answer.iter_bytes() if answer.status_code == 200 else ():
                    begun.set()

    scene.in_background(download)
    assert begun.wait(PATIENCE)


def a_sync(scene: Scene) -> None:
    scene.wire.stdout(scene.session, f"mkdir -p {TOP}; for i in $(seq {FILES}); do echo $i > {TOP}/$i; done")
    scene.wire.data("SyncContext", SessionId=scene.session)


UNDER_WAY = [a_process, a_command, a_websocket, a_download, a_sync]
ACTIONS = {  # what comes of it in a session that runs, and in one that is paused
    "PauseSessionAsync": (("", "PAUSED"), ("IncorrectStatus.Session", "PAUSED")),
    "ResumeSessionAsync": (("IncorrectStatus.Session", "RUNNING"), ("", "RUNNING")),
    "RefreshSessionIdleTime": (("", "RUNNING"), ("", "PAUSED")),
    "DeleteSessionAsync": (("", "FINISH"), ("", "FINISH")),
}


@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
@pytest.mark.parametrize("begin", UNDER_WAY)
def test_meanwhile(wire: Wire, begin: Callable[[Scene], None], paused: bool):
    """Only the state decides whether an action is refused, and a deletion leaves nothing."""
    for action, outcomes in ACTIONS.items():
        scene = Scene(wire)
        try:
            begin(scene)
            if paused:
                assert scene.ask("PauseSessionAsync") == ""
            code, state = outcomes[paused]
            assert scene.ask(action) == code
            assert eventually(lambda s=scene, state=state: wire.status(s.session) == state)
        finally:
            scene.end()
        if begin is a_sync:  # the context is whole, whatever came in between
            page = {"ParentFolderPath": TOP, "PageNumber": 1, "PageSize": 2 * FILES}
            assert len(wire.data("DescribeContextFiles", ContextId=scene.context, **page)) == FILES


def test_release_meanwhile(wire: Wire):
    """Downloads and input keep a session alive, and an idle WebSocket does not."""
    download, typing, listening = (Scene(wire, Timeout=10) for _ in range(3))
    typed = threading.Event()

    def type_on(stream: ClientConnection, terminal: str) -> None:
        while not typed.wait(0.1):
            say(stream, "pty.input", ptySessionId=terminal, data="x")

    try:
        a_download(download)
        typing.in_terminal(type_on)
        a_websocket(listening)  # the last to be active, and so the last that could be released
        assert eventually(lambda: wire.status(listening.session) == "FINISH")
        assert [wire.status(scene.session) for scene in (download, typing)] == ["RUNNING", "RUNNING"]
        typed.set()
        assert eventually(lambda: wire.status(typing.session) == "FINISH")
        assert wire.status(download.session) == "RUNNING"
    finally:
        typed.set()
        for scene in download, typing, listening:
            scene.end()
