"""Measure browsers and desktops of local sessions, with a browser outside of any sandbox beside them.

    python benchmarks/screens.py [rounds [sessions]]

Each round (10) makes a session with a browser and one with a desktop, of a runtime that starts them ahead and of one
that does not. Then so many sessions (20) hold a browser at once. Needs chromium and the programs of a desktop.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from websockets.sync.client import connect

from agentbay import AgentBay, CreateSessionParams, Session
from agentbay.local.browser.engines import find_engine

BROWSER, DESKTOP = CreateSessionParams(image_id="browser_latest"), CreateSessionParams(image_id="linux_latest")
SCREENSHOTS, CLICKS = 10, 50  # in each round
GET_VERSION = '{"id": 1, "method": "Browser.getVersion"}'
POLL_SECONDS = 0.005
AHEAD_SECONDS = 4.0  # after a round, for what is started ahead
_T = TypeVar("_T")


class Figures:
    """Milliseconds by what took them."""

    def __init__(self) -> None:
        self._found: defaultdict[str, list[float]] = defaultdict(list)

    @contextmanager
    def time(self, what: str) -> Iterator[None]:
        """Take the time of a `with` block."""
        began = time.perf_counter()
        yield
        self._found[what].append(1000 * (time.perf_counter() - began))

    def print(self) -> None:
        """Print medians and ranges."""
        for what, times in self._found.items():
            low, high = min(times), max(times)
            print(f"{what:60} {statistics.median(times):8.1f}   {low:.1f} to {high:.1f}", flush=True)


def ask_version(url: str) -> None:
    """Ask a browser for its version, over a connection of its own."""
    with connect(url, proxy=None, max_size=None) as socket:
        socket.send(GET_VERSION)
        socket.recv()


def wait_for(look: Callable[[], _T | None]) -> _T:
    """Return what is found first."""
    while (found := look()) is None:
        time.sleep(POLL_SECONDS)
    return found


def browser_outside(figures: Figures) -> None:
    """Start the browser as a plain process."""
    engine = find_engine()
    assert engine is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        port_file = Path(profile) / "DevToolsActivePort"
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0"]
        with figures.time("browser outside, to its first answer"):
            process = subprocess.Popen([engine.path, *flags, f"--user-data-dir={profile}"], stderr=subprocess.DEVNULL)
            wait_for(lambda: (port_file.exists() and len(port_file.read_text().split()) == 2) or None)
            port, path = port_file.read_text().split()
            ask_version(f"ws://127.0.0.1:{port}{path}")
        process.terminate()
        process.wait()


def browser_of_session(bay: AgentBay, figures: Figures, how: str) -> None:
    """Start a session with a browser."""
    with figures.time(f"session with a browser{how}, to its first answer"):
        session = bay.create(BROWSER).unwrap().session
        start_browser(session)
    session.delete()


def start_browser(session: Session) -> None:
    """Start a session's browser, and wait for its first answer."""
    assert session.browser.initialize()
    ask_version(session.browser.get_endpoint_url())


def desktop_of_session(bay: AgentBay, figures: Figures, how: str) -> None:
    """Start a session with a desktop, and use it."""
    session = bay.create(DESKTOP).unwrap().session
    with figures.time(f"desktop{how}, to its first answer"):
        session.computer.get_screen_size().unwrap()
    for _ in range(SCREENSHOTS):
        with figures.time("screenshot of a desktop"):
            session.computer.beta_take_screenshot("png")
    for number in range(CLICKS):
        with figures.time("call without work"):
            session.get_labels().unwrap()
        with figures.time("click"):
            session.computer.click_mouse(10 + number, 10).unwrap()
    session.delete()


def browsers_at_once(bay: AgentBay, count: int) -> None:
    """Hold many sessions with a browser, and tell the memory of each."""
    sessions = [bay.create(BROWSER).unwrap().session for _ in range(count)]
    began = time.perf_counter()
    for session in sessions:
        start_browser(session)
    seconds = time.perf_counter() - began
    used = [session.get_metrics().unwrap().metrics.mem_used / (1 << 20) for session in sessions]
    print(
        f"{count} browsers at once: {seconds:.1f} s to start one after the other, memory of each {min(used):.0f} to "
        f"{max(used):.0f} MiB, {sum(used):.0f} MiB together"
    )
    for session in sessions:
        session.delete()


def main() -> None:
    rounds, count = (int(sys.argv[1]) if sys.argv[1:] else 10), (int(sys.argv[2]) if sys.argv[2:] else 20)
    load = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load {load:.1f} before; {rounds} rounds")
    print(f"{'':60} {'median':>8}   range, in ms")
    figures = Figures()
    with AgentBay.local() as ahead, AgentBay.local(start_ahead="off") as bay:
        browser_of_session(ahead, Figures(), "")  # the first one is never ahead
        desktop_of_session(ahead, Figures(), "")
        for _ in range(rounds):
            time.sleep(AHEAD_SECONDS)
            browser_outside(figures)
            browser_of_session(bay, figures, "")
            browser_of_session(ahead, figures, " started ahead")
            desktop_of_session(bay, figures, "")
            desktop_of_session(ahead, figures, " started ahead")
        figures.print()
        browsers_at_once(bay, count)


if __name__ == "__main__":
    main()
