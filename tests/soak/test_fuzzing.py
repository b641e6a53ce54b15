"""Sessions that send the service nonsense by every way that they have, beside one that works."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.local.contexts.actions import sync_item
from tests.local.raw import Child, Refused, Wire
from tests.soak.fuzzed_sandboxes import MARK

pytestmark = pytest.mark.soak

SECONDS = float(os.environ.get("AGENTBAY_SOAK_FUZZ_SECONDS", "600"))
SEED = os.environ.get("AGENTBAY_SOAK_SEED") or os.urandom(4).hex()
RUNTIME = str(Path(__file__).with_name("fuzzed_runtime.py"))
WAIT_SECONDS = 20.0  # for an answer of a session that sends nonsense
MAX_GROWN_BYTES = 1 << 30
# runs in a Python kernel, and sends frames by its socket
FRAMES = """
import json, os, random, socket, sys
sys.path.insert(0, "/tmp")
wild = random.Random({seed!r})
fd = next(int(f) for f in os.listdir("/proc/self/fd") if os.readlink("/proc/self/fd/" + f).startswith("socket:"))
link = socket.socket(fileno=os.dup(fd))
def value(depth=3):
    if depth and wild.random() < 0.4:
        return wild.choice([[value(depth - 1)] * 3, {{"data": value(depth - 1), "event": value(depth - 1)}}])
    return wild.choice([None, True, -1, 1 << 70, 1e308, "", "x" * 100000, "\\ud800", "a/b", "result", float("nan")])
events = ["ready", "failed", "begin", "result", "clear", "error", "done", "", None]
keys = ["data", "main", "display", "update", "wait", "name", "value", "traceback", "count", "pid", "message"]
for _ in range(wild.randrange(1, 60)):
    frame = {{key: value() for key in wild.sample(keys, wild.randrange(6))}}
    frame["event"] = wild.choice(events) if wild.random() < 0.9 else value()
    body = bytearray(json.dumps(frame if wild.random() < 0.9 else value()).encode())
    if wild.random() < 0.1:
        body[wild.randrange(len(body))] = wild.randrange(256)
    if wild.random() < 0.05:
        body = bytearray(b"[" * (1 << 21))
    length = len(body) if wild.random() < 0.97 else wild.randrange(1 << 32)
    link.sendall(length.to_bytes(4, "little") + body)
    os.write(1, wild.randbytes(wild.randrange(1000)))
"""


def call_raw(wire: Wire, made: dict[str, Any], tool: str, args: dict[str, Any], body: bytes = b"") -> None:
    """Call a tool with raw bytes, and read the answer."""
    call = json.dumps({"tool": tool, "args": args})
    headers = {"content-type": "application/octet-stream", "x-access-token": made["Token"], "x-tool-call": call}
    _ = wire.http.post(f"{made['LinkUrl']}/callTool", headers=headers, content=body).content


def attack(url: str, seed: str) -> None:
    """Make a session, have it send nonsense, use it in every way, and delete it."""
    wild, wire = random.Random(seed), Wire(url)
    with wire.http:
        context = wire.data("GetContext", Name=f"context-{wild.randrange(3)}", AllowCreate="true")["Id"]
        made = wire.data("CreateMcpSession", PersistenceDataList=[sync_item(context, "/tmp/data")])
        session, forks = str(made["SessionId"]), list[str]()
        wire.http.timeout = httpx.Timeout(WAIT_SECONDS)
        make = "mkdir -p /tmp/data/d; seq 999 > /tmp/data/d/f; ln -sf / /tmp/data/l"
        wire.stdout(session, make)
        mark = f"echo {seed} > {MARK}"
        ways: list[Callable[[], Any]] = [
            lambda: wire.tool(session, "shell", command="ls /; exit 3", timeout_ms=3000),
            lambda: wire.tool(session, "list_directory", path=wild.choice(["/tmp", "/tmp/data", "/usr/bin"])),
            lambda: wire.tool(session, "read_file", path="/tmp/data/d/f", offset=0, length=0),
            lambda: wire.tool(session, "write_file", path="/tmp/w", content="x" * 99999, mode="append"),
            lambda: wire.tool(session, "search_files", path="/tmp", pattern="*"),
            lambda: wire.tool(session, "get_file_info", path="/tmp/w"),
            lambda: wire.tool(session, "get_file_change", path="/tmp"),
            lambda: wire.tool(session, "get_metrics"),
            lambda: wire.tool(session, "run_code", code=FRAMES.format(seed=seed), language="python", timeout_s=5),
            lambda: wire.tool(session, "start_process", command="cat; ls /", processId="p"),
            lambda: wire.tool(session, "read_process_output", processId="p", offset=0, waitMs=300),
            lambda: wire.tool(session, "write_process_input", processId="p", data="x", close=True),
            lambda: call_raw(wire, made, "write_file", {"path": "/tmp/w", "content": ""}, wild.randbytes(300_000)),
            lambda: call_raw(wire, made, "read_file", {"path": wild.choice(["/tmp/w", "/tmp/data/d/f"])}),
            lambda: call_raw(wire, made, "shell", {"command": "head -c 9; ls -R /", "timeout_ms": 3000}, b"x" * 99999),
            lambda: call_raw(wire, made, "read_process_output", {"processId": "p", "offset": 0, "waitMs": 300}),
            lambda: forks.extend(fork["SessionId"] for fork in wire.data("ForkSession", SessionId=session, Count=1)),
            lambda: wire.data("SnapshotSession", SessionId=session, Name=f"fuzz:{wild.randrange(3)}"),
            lambda: wire.data("SyncContext", SessionId=session),
            lambda: wire.data("GetContextInfo", SessionId=session),
            lambda: wire.data("PauseSessionAsync", SessionId=session),
            lambda: wire.data("ResumeSessionAsync", SessionId=session),
            lambda: wire.data("GetLink", SessionId=session, Port=30100, ProtocolType="https"),
        ]
        for way in [lambda: wire.stdout(session, mark), *wild.choices(ways, k=15)]:
            # Whatever it answers, or that it dies, is its own affair.
            with suppress(Refused, httpx.HTTPError, AssertionError, ValueError, LookupError, TypeError):
                way()
        for each in (session, *forks):
            with suppress(Refused, httpx.HTTPError):
                wire.data("DeleteSessionAsync", SessionId=each)


def resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))


def test_fuzzing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For ten minutes, nothing but the session itself dies of what it sends."""
    with Child([RUNTIME, "--log-level=error", "--state-dir", str(tmp_path)]) as child:
        wire, rounds, end = Wire(child.url), 0, time.monotonic() + SECONDS
        with wire.http, ThreadPoolExecutor(3) as threads:
            victim = wire.create()
            wire.text(victim, "write_file", path="/tmp/mine", content="kept", mode="overwrite")
            wire.tool(victim, "run_code", code="mine = 42", language="python")
            before = resident_bytes(child.process.pid)
            while time.monotonic() < end:
                for done in [threads.submit(attack, child.url, f"{SEED}-{rounds + number}") for number in range(3)]:
                    done.result()
                rounds += 3
                assert wire.stdout(victim, "cat /tmp/mine") == "kept", SEED
                assert "42" in wire.text(victim, "run_code", code="mine", language="python"), SEED
                assert wire.status(victim) == "RUNNING", SEED
            grown = resident_bytes(child.process.pid) - before
        assert child.close_stdin() == 0
        complaints = child.standard_error()
        with capsys.disabled():
            print(f"\nfuzzing: seed {SEED}, {rounds} sessions in {SECONDS:.0f} s, {grown >> 20} MiB more")
        assert "Traceback" not in complaints, f"seed {SEED}\n{complaints}"
        assert grown < MAX_GROWN_BYTES
