"""Sessions that send what takes long to parse hold up nobody else, and fill no memory."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest

from tests.local.hostile_programs import FALSE_BROWSER, LINK_SERVER, PROXY_CLIENT
from tests.local.raw import Refused, Wire, embedded
from tests.local.traces import PATIENCE, resident_bytes

FLOOD_SECONDS = 6
MAX_WAIT_SECONDS = 4.0  # for a command of another session; alone it takes 20 ms, and before all of the flood
MAX_GROWN_BYTES = 400 << 20
FLOODS = ("empty frames", "pings", "dialogs", "pages", "empty lists", "large messages")
pytestmark = pytest.mark.slow
needs_browser = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="no chromium; scripts/test says how to get it"
)


@pytest.fixture(scope="module")
def sink() -> Iterator[int]:
    """A server that reads all it is sent: its port."""

    def read(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while connection.recv(1 << 20):
                pass

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=read, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]


@pytest.fixture(scope="module")
def runtime(sink: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Wire]]:
    """A runtime: the pid of its service, and a client."""
    with embedded(tmp_path_factory.mktemp("state"), "--allow-host", f"127.0.0.1:{sink}") as (child, wire):
        yield child.process.pid, wire
        assert child.close_stdin() == 0
        assert "Traceback" not in child.standard_error()


@contextmanager
def undisturbed(pid: int, wire: Wire) -> Iterator[None]:
    """Check that another session's commands are quick meanwhile, and that the service does not grow."""
    other, waited, stop, before = Wire(wire.url), list[float](), threading.Event(), resident_bytes(pid)

    def run_commands(session: str) -> None:
        while not stop.is_set():
            began = time.monotonic()
            other.stdout(session, "true")
            waited.append(time.monotonic() - began)

    with other.http, other.session() as session:
        other.stdout(session, "true")
        commands = threading.Thread(target=run_commands, args=(session,))
        commands.start()
        try:
            yield
        finally:
            stop.set()
            commands.join()
    assert waited
    assert max(waited) < MAX_WAIT_SECONDS
    assert resident_bytes(pid) - before < MAX_GROWN_BYTES


def start(wire: Wire, session: str, program: str, **values: object) -> None:
    """Start a program in a session."""
    content = program.format(seconds=FLOOD_SECONDS, **values)
    wire.text(session, "write_file", path="/tmp/program.py", content=content, mode="overwrite")
    wire.text(session, "start_process", command="python3 /tmp/program.py")


def test_proxy_requests_in_tiny_chunks(runtime: tuple[int, Wire], sink: int) -> None:
    """A body in chunks of one byte, on 20 connections to the egress proxy."""
    pid, wire = runtime
    with wire.session() as session, undisturbed(pid, wire):
        start(wire, session, PROXY_CLIENT, port=sink)
        time.sleep(FLOOD_SECONDS)


@pytest.mark.parametrize("kind", ["chunks", "heads"])
def test_link_answers_in_tiny_pieces(runtime: tuple[int, Wire], kind: str) -> None:
    """An answer in chunks of one byte, or behind any number of other heads."""
    pid, wire = runtime
    with wire.session() as session, undisturbed(pid, wire):
        start(wire, session, LINK_SERVER)
        wire.stdout(session, "until [ -e listening ]; do sleep 0.05; done")
        url = wire.data("GetLink", SessionId=session, Port=30100, ProtocolType="https")["Url"]
        readers = [threading.Thread(target=read_link, args=(f"{url}/{kind}",)) for _ in range(4)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()


def read_link(url: str) -> None:
    end = time.monotonic() + FLOOD_SECONDS
    with suppress(httpx.HTTPError), httpx.stream("GET", url, timeout=PATIENCE, trust_env=False) as answer:
        for _ in answer.iter_raw():
            if time.monotonic() > end:
                return


@needs_browser
@pytest.mark.parametrize("flood", FLOODS)
def test_false_browser(runtime: tuple[int, Wire], flood: str) -> None:
    """A program in the browser's place floods the tools of the browser and the recorder."""
    pid, wire = runtime
    with wire.session() as session, undisturbed(pid, wire):
        start(wire, session, FALSE_BROWSER, flood=flood, port_files=[])
        option = {"enableRecord": flood == "pages"}
        client = Wire(wire.url)
        client.http.timeout = httpx.Timeout(FLOOD_SECONDS)
        with client.http, suppress(Refused, httpx.TimeoutException):
            client.data("InitBrowser", SessionId=session, PersistentPath="", BrowserOption=option)
            client.tool(session, "page_use_screenshot", context_id=0)
            time.sleep(FLOOD_SECONDS / 2)


@needs_browser
def test_false_port_files(runtime: tuple[int, Wire]) -> None:
    """What is in the browser's port file gets into no URL, and breaks nothing, though it changes all the time."""
    _, wire = runtime
    url, paths = "", {"99999999": "/devtools/browser/x", "9" * 5000: "/", "30100": "/x\x1b]0;owned\x07"}
    with wire.session() as session:
        files = [f"{port}\n{path}\n" for port, path in paths.items()]
        start(wire, session, FALSE_BROWSER, flood="nothing", port_files=files)
        with suppress(Refused):
            wire.data("InitBrowser", SessionId=session, PersistentPath="", BrowserOption={})
            url = wire.data("GetCdpLink", SessionId=session)["Url"]
    assert "\x1b" not in url
    assert not any(f".{port}." in url for port in paths)  # but that of the real browser, if it was quicker


@needs_browser
def test_false_browser_that_redirects(runtime: tuple[int, Wire]) -> None:
    """The service does not follow a redirect of what listens on the browser's port."""
    _, wire = runtime
    with wire.session() as session:
        start(wire, session, FALSE_BROWSER, flood="redirect", port_files=[])
        wire.data("InitBrowser", SessionId=session, PersistentPath="", BrowserOption={})
        reply = wire.tool(session, "page_use_screenshot", context_id=0)
        assert "InvalidStatus" in reply["content"][0]["text"] or not reply["isError"]
