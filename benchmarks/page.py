"""Measure what the dashboard costs, for many sessions and while commands run.

    python benchmarks/page.py [SECONDS [SESSIONS ...]]

Processor time is the runtime's own, as a share of one core. Of the sessions in the list one in fifty runs a program
that takes and gives back memory all the time; the others rest. The result is `results/page.txt`.
"""

from __future__ import annotations

import re
import statistics
import sys
import threading
import time
from contextlib import ExitStack

import httpx
from measure import KEY, machine, processor_seconds, runtime, timed

from agentbay import AgentBay, Config, Session

RESTLESS = """
import mmap, time
while True:
    with mmap.mmap(-1, 10 << 20) as some:
        some.write(bytes(len(some)))
        time.sleep(0.7)
    time.sleep(0.7)
"""
ROUNDS = 300
_OPENED = {"sec-fetch-dest": "document"}  # as browsers say of a page that a person opens


class Visitor(threading.Thread):
    """A browser's stand-in that reads and counts the events."""

    def __init__(self, url: str, path: str = "") -> None:
        super().__init__(daemon=True)
        self.http = httpx.Client(base_url=url, timeout=60, trust_env=False)
        self.http.post("/view", data={"key": KEY})
        found = re.search('name="agentbay-csrf-token" content="([^"]+)"', self.http.get("/view", headers=_OPENED).text)
        assert found is not None
        self._csrf_token, self._path, self._leaves = found[1], path, threading.Event()
        self.first, self.later = threading.Event(), 0
        self.first_bytes = 0

    def run(self) -> None:
        headers = {"authorization": f"Bearer {self._csrf_token}"}
        with self.http.stream("POST", f"/view/data{self._path}", headers=headers) as answer:
            for line in answer.iter_lines():
                if not self.first.is_set():
                    self.first_bytes = len(line)
                    self.first.set()
                else:
                    self.later += len(line)
                if self._leaves.is_set():
                    return

    def __enter__(self) -> Visitor:
        self.start()
        assert self.first.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._leaves.set()
        self.join()
        self.http.close()


def share(process: int, seconds: float) -> float:
    """Return the share of a core that a process uses, per cent."""
    began, before = time.monotonic(), processor_seconds({process})
    time.sleep(seconds)
    return 100 * (processor_seconds({process}) - before) / (time.monotonic() - began)


def of_the_list(url: str, process: int, seconds: float, pages: int) -> str:
    """Return a table row for this many open dashboards."""
    with ExitStack() as stack:
        visitors = [stack.enter_context(Visitor(url)) for _ in range(pages)]
        time.sleep(2)
        before = [visitor.later for visitor in visitors]
        load = share(process, seconds)
        rate = [(visitor.later - then) / seconds for visitor, then in zip(visitors, before, strict=True)]
        first = f"{visitors[0].first_bytes / 1024:12.1f}{statistics.mean(rate) / 1024:12.2f}" if visitors else ""
        return f"{pages:8}{load:10.1f}{first}"


def of_commands(session: Session) -> str:
    """Return median and minimum duration of a command, in milliseconds."""
    times = timed(lambda: session.command.run("true"), ROUNDS)
    return f"{statistics.median(times):10.2f}{min(times):10.2f}"


def made(bay: AgentBay) -> Session:
    """Create a session."""
    session = bay.create().unwrap().session
    assert session is not None
    return session


def main() -> None:
    """Measure and print."""
    seconds, *stages = [float(text) for text in sys.argv[1:]] or [20.0, 1.0, 50.0, 1000.0]
    print(f"$ python {' '.join(sys.argv)}")
    print(f"{machine()}\n")
    with runtime() as (url, child), AgentBay(KEY, Config(endpoint=url)) as bay:
        print(f"{'sessions':>10}{'pages':>8}{'% of core':>10}{'first KiB':>12}{'then KiB/s':>12}")
        sessions: list[Session] = []
        for stage in stages:
            while len(sessions) < stage:
                sessions.append(made(bay))
                if len(sessions) % 50 == 1:
                    sessions[-1].file_system.write_file("restless.py", RESTLESS)
                    sessions[-1].command.start("python3 restless.py")
            for pages in (0, 1, 8):
                print(f"{int(stage):10,}{of_the_list(url, child.pid, seconds, pages)}", flush=True)
        print(f"\n{'a command, milliseconds':34}{'median':>10}{'min':>10}")
        session = made(bay)
        print(f"{'nobody looks':34}{of_commands(session)}", flush=True)
        with Visitor(url, f"/{session.session_id}"):
            print(f"{'the page of its session is open':34}{of_commands(session)}", flush=True)


if __name__ == "__main__":
    main()
