"""Measure how long another session's command waits while one session does its worst.

    python benchmarks/neighbours.py [seconds [name ...]]

Each kind of load runs for that long (10 s) in a process of its own, against a runtime of its own. Meanwhile a second
session runs `true`, one command after the other. "processor" is a load that only computes in its session: what any load
costs on this machine. The last column divides a 99th percentile by that of "processor".
"""

from __future__ import annotations

import json
import logging
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
from measure import KEY, machine, runtime
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

MIB = 1 << 20
LISTED_FILES = 50_000
TARGET_MS = 50.0
FRAMES = """
import json, os, socket
fd = next(int(f) for f in os.listdir('/proc/self/fd') if os.readlink('/proc/self/fd/' + f).startswith('socket:'))
s = socket.socket(fileno=os.dup(fd))
frames = [json.dumps(frame).encode() for frame in ({FRAME})]
while True:
    for frame in frames:
        s.sendall(len(frame).to_bytes(4, 'little') + frame)
"""
SMALL_FRAMES = '{"event": "result", "data": {"text/plain": "x"}} for _ in range(1000)'
LARGE_FRAMES = '{"event": "result", "data": {"text/plain": "\\0" * 3_000_000}} for _ in range(1)'
NESTED_FRAMES = '{"event": "result", "data": {"text/plain": [[]] * 2_000_000}} for _ in range(1)'


class Client:
    """A client of the bare wire, with one connection."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=120, trust_env=False)

    def action(self, action: str, **fields: str) -> Any:
        """Do an action, and return its data."""
        return self.post("/", action, urlencode({"Authorization": f"Bearer {KEY}", **fields})).get("Data")

    def tool(self, session: str, name: str, **arguments: Any) -> None:
        """Call a tool, and drop its answer unread."""
        fields = {"SessionId": session, "Name": name, "Server": "", "Args": json.dumps(arguments)}
        self.send("/", "CallMcpTool", urlencode({"Authorization": f"Bearer {KEY}", **fields}))

    def shell(self, session: str, command: str) -> None:
        """Run a command."""
        self.tool(session, "shell", command=command, timeout_ms=120_000)

    def post(self, path: str, action: str, form: str) -> Any:
        """Send a form, and return the answer."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = self.http.post(path, params={"Action": action}, content=form, headers=headers)
        answer.raise_for_status()
        return answer.json()

    def send(self, path: str, action: str, form: str) -> None:
        """Send a form, and drop the answer: to read it as JSON would take longer than to make it."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        with self.http.stream("POST", path, params={"Action": action}, content=form, headers=headers) as answer:
            answer.raise_for_status()
            for _ in answer.iter_raw():
                pass

    def direct(self, session: dict[str, str], body: bytes) -> None:
        """Call a tool at the session's link."""
        headers = {"X-Access-Token": session["Token"], "Content-Type": "application/json"}
        self.http.post(f"{session['LinkUrl']}/callTool", content=body, headers=headers)


Load = Callable[[Client, dict[str, str]], None]  # one round of a load, repeated until the time is over


def processor(client: Client, session: dict[str, str]) -> None:
    """Compute in the session."""
    client.shell(session["SessionId"], "timeout 1 sh -c 'while :; do :; done'")


def large_output(client: Client, session: dict[str, str]) -> None:
    """Run a command whose output becomes six times as long in JSON."""
    client.shell(session["SessionId"], f"head -c {64 * MIB} /dev/zero")


def large_read(client: Client, session: dict[str, str]) -> None:
    """Read a large file."""
    client.shell(session["SessionId"], f"truncate -s {250 * MIB} /tmp/large")
    client.tool(session["SessionId"], "read_file", path="/tmp/large", offset=0, length=0)


def large_form(client: Client, session: dict[str, str]) -> None:
    """Write a file by a form whose characters are all escaped."""
    client.send("/", "CallMcpTool", _large_form(session["SessionId"]))


@cache
def _large_form(session: str) -> str:
    arguments = json.dumps({"path": "/tmp/w", "content": "\n" * (10 * MIB), "mode": "overwrite"})
    fields = {"SessionId": session, "Name": "write_file", "Server": "", "Args": arguments}
    return urlencode({"Authorization": f"Bearer {KEY}", **fields})


@cache
def _json_body(session: str, content: str, more: int) -> bytes:
    """Return a direct call with a text, and with so many empty lists as an unknown argument."""
    arguments = {"path": "/tmp/w", "content": content, "mode": "overwrite", "more": [[]] * more}
    body = {"tool": "write_file", "args": arguments, "server": "", "requestId": "1", "token": session}
    return json.dumps(body, ensure_ascii=False).encode()


def large_json(client: Client, session: dict[str, str]) -> None:
    """Write a file by a direct call of 58 MiB."""
    client.direct(session, _json_body(session["Token"], "ä\n" * (15 * MIB), 0))


def nested_json(client: Client, session: dict[str, str]) -> None:
    """Send millions of empty lists as an argument."""
    client.direct(session, _json_body(session["Token"], "", 8 * MIB))


def small_calls(client: Client, session: dict[str, str]) -> None:
    """Send many small requests by 16 connections."""

    def work() -> None:
        own = Client(str(client.http.base_url))
        for _ in range(200):
            own.action("GetLabel", SessionId=session["SessionId"])

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def output_flood(client: Client, session: dict[str, str]) -> None:
    """Run commands that write without end."""
    client.shell(session["SessionId"], "for i in 1 2 3 4 5 6 7 8; do timeout 5 yes & done; timeout 5 yes >&2; wait")


def listing(client: Client, session: dict[str, str]) -> None:
    """List a large directory and search in it."""
    make = f"mkdir -p /tmp/many && cd /tmp/many && test -e 1 || seq {LISTED_FILES} | xargs touch"
    client.shell(session["SessionId"], make)
    client.tool(session["SessionId"], "list_directory", path="/tmp/many")
    client.tool(session["SessionId"], "search_files", path="/tmp/many", pattern="*")


def changes(client: Client, session: dict[str, str]) -> None:
    """Ask for the changes in a directory where all changes."""
    client.tool(session["SessionId"], "get_file_change", path="/tmp/many")
    client.shell(session["SessionId"], f"mkdir -p /tmp/many; cd /tmp/many; seq {LISTED_FILES} | xargs touch")
    client.tool(session["SessionId"], "get_file_change", path="/tmp/many")


def _frames(frames: str) -> Load:
    def send(client: Client, session: dict[str, str]) -> None:
        code = FRAMES.replace("{FRAME}", frames)
        client.tool(session["SessionId"], "run_code", code=code, language="python", timeout_s=5)

    return send


@cache
def _frame(data: str, lists: int) -> str:
    body = {"x": data, "lists": [[]] * lists}
    return json.dumps({"invocationId": "1", "source": "SDK", "target": "nobody", "data": body})


def _read_all(websocket: ClientConnection) -> None:
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # it prints a traceback for each refused frame
    with suppress(ConnectionClosed):
        for _ in websocket:
            pass


def _websocket(session: dict[str, str], frames: Iterable[str]) -> None:
    headers = {"X-Access-Token": session["Token"]}
    # The service closes the connection after a frame that it refuses.
    with suppress(ConnectionClosed), connect(session["WsUrl"], additional_headers=headers, max_size=None) as websocket:
        threading.Thread(target=_read_all, args=[websocket], daemon=True).start()
        for frame in frames:
            websocket.send(frame)
        websocket.ping().wait(60)


def websocket_small(_: Client, session: dict[str, str]) -> None:
    """Send many small frames to the session's WebSocket."""
    _websocket(session, repeat(_frame("x", 0), 5000))


def websocket_large(_: Client, session: dict[str, str]) -> None:
    """Send large frames to the session's WebSocket."""
    _websocket(session, repeat(_frame("\n" * 25 * MIB, 0), 4))


def websocket_nested(_: Client, session: dict[str, str]) -> None:
    """Send frames of millions of empty lists to the session's WebSocket."""
    _websocket(session, repeat(_frame("", 8 * MIB), 2))


LOADS: dict[str, Load] = {
    "processor": processor,
    "large output": large_output,
    "large read": large_read,
    "large form": large_form,
    "large JSON": large_json,
    "nested JSON": nested_json,
    "small calls": small_calls,
    "output flood": output_flood,
    "listing": listing,
    "changes": changes,
    "small frames": _frames(SMALL_FRAMES),
    "large frames": _frames(LARGE_FRAMES),
    "nested frames": _frames(NESTED_FRAMES),
    "WebSocket, small": websocket_small,
    "WebSocket, large": websocket_large,
    "WebSocket, nested": websocket_nested,
}


def load(name: str, url: str) -> None:
    """Put one kind of load on a session, until this process is killed."""
    client = Client(url)
    session = client.action("CreateMcpSession")
    LOADS[name](client, session)  # once before: it makes what is sent, which takes longer than to send it
    print("ready", flush=True)
    while True:
        LOADS[name](client, session)
        print("round", flush=True)


def measure(name: str, seconds: float) -> tuple[list[float], int]:
    """Return the durations of another session's commands in milliseconds, and the rounds of the load."""
    with (
        tempfile.TemporaryDirectory() as directory,
        runtime("--log-level=error", "--state-dir", directory) as (url, _),
    ):
        client = Client(url)
        session = client.action("CreateMcpSession")["SessionId"]
        for _ in range(20):
            client.shell(session, "true")
        command = [sys.executable, __file__, "--load", name, url]
        attacker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == "ready\n"
        found, end = list[float](), time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.perf_counter()
            client.shell(session, "true")
            found.append((time.perf_counter() - began) * 1000)
        attacker.kill()
        rounds = attacker.stdout.read().count("round")
        attacker.wait()
        return found, rounds


def main() -> None:
    """Measure and print."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    names = ["processor", *(sys.argv[2:] or [name for name in LOADS if name != "processor"])]
    print(f"{machine()}; milliseconds; target {TARGET_MS:.0f} for p99")
    print(f"{'':<20}{'rounds':>8}{'commands':>9}{'median':>8}{'p99':>8}{'max':>8}{'ratio':>7}")
    base = 0.0
    for name in names:
        values, rounds = measure(name, seconds)
        values.sort()
        p99 = values[min(len(values) - 1, int(len(values) * 0.99))]
        base = base or p99
        line = f"{rounds:>8}{len(values):>9}{statistics.median(values):>8.1f}{p99:>8.1f}{values[-1]:>8.1f}"
        print(f"{name:<20}{line}{p99 / base:>7.1f}", flush=True)


if __name__ == "__main__":
    assert Path("/proc").exists(), "The local runtime needs Linux."
    if sys.argv[1:2] == ["--load"]:
        load(*sys.argv[2:4])
    else:
        main()
