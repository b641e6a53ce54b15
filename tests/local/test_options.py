"""The limits that options set, each met by code that goes beyond it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentbay.local.sandbox import cgroups
from tests.local.raw import Child, Wire, embedded

EACH = {
    "--session-processes": "40",
    "--session-memory": "200MiB",
    "--session-disk": "60MiB",
    "--session-open-files": "100",
    "--output-limit": "1MiB",
}
TOGETHER = {"--session-cpus": "0.5", "--cpus": "1.5", "--memory": "300MiB", "--processes": "60"}
FORKS = """
import os, signal, time
made = []
try:
    while len(made) < 1000:
        made.append(os.fork())
        if made[-1] == 0:
            time.sleep(60)
except OSError:
    print(len(made))
for child in made:
    os.kill(child, signal.SIGKILL)
"""
WITHOUT_GROUPS = """
import sys
from agentbay.local.sandbox import cgroups
cgroups._discover = lambda mountinfo, membership: iter(())
from agentbay.local.__main__ import main
sys.exit(main())
"""


def groups() -> frozenset[str]:
    found = cgroups.Cgroups.find()
    return found.controllers if found else frozenset()


@pytest.fixture(scope="module", params=["groups", "no groups"])
def limited(request: pytest.FixtureRequest) -> Iterator[tuple[Wire, Child]]:
    """A runtime with limits, where control groups can be made and where they cannot."""
    given = dict(EACH)
    if request.param == "groups":
        if not {"pids", "memory", "cpu"} <= groups():
            pytest.skip("no control groups can be made here")
        given |= TOGETHER
    options = [word for pair in given.items() for word in pair]
    start = ["-m", "agentbay.local"] if request.param == "groups" else ["-c", WITHOUT_GROUPS]
    child = Child([*start, *options])
    try:
        wire = Wire(child.url)
        with wire.http:
            yield wire, child
    finally:
        child.release()


def test_of_a_session(limited: tuple[Wire, Child]):
    """Processes, memory, open files, output and disk of a session end where the options say; another one goes on."""
    wire, _ = limited
    with wire.session() as session, wire.session() as other:
        count = int(wire.stdout(session, f"python3 -c '{FORKS}'"))
        assert 20 < count < 40
        assert wire.stdout(session, "ulimit -n") == "100\n"
        large = wire.sh(session, "python3 -c 'bytearray(b\"x\") * (600 << 20)'", timeout_ms=60_000)
        assert large["exit_code"] != 0
        assert "the session may use 200 MiB of memory" in large["stderr"]
        reply = wire.tool(session, "shell", command="head -c 3000000 /dev/zero | tr '\\0' x", timeout_ms=60_000)
        assert len(json.loads(reply["content"][0]["text"])["stdout"]) == 1 << 20
        assert reply["structuredContent"]["truncated"] is True
        fill = "for i in $(seq 200); do head -c 5000000 /dev/zero > f$i; sleep 0.05; done"
        full = wire.sh(session, fill, timeout_ms=60_000)
        assert "the session may use 60 MiB of disk" in full["stderr"]
        reply = wire.tool(session, "write_file", path="g", content="x" * 70_000_000 if full["exit_code"] == 0 else "x")
        assert reply["isError"]
        assert "No space left" in reply["content"][0]["text"]
        assert wire.stdout(other, "echo fine") == "fine\n"


@pytest.mark.parametrize("limited", ["groups"], indirect=True)
def test_of_all_sessions(limited: tuple[Wire, Child]):
    """What all sessions have together ends where the options say, whichever of them asks for more."""
    wire, child = limited
    places = list(Path("/sys/fs/cgroup").rglob(f"agentbay-{child.process.pid}-*"))
    hold = "python3 -c 'x = bytearray(b\"x\") * (170 << 20); import time; time.sleep(2)'"
    with wire.session() as one, wire.session() as two, ThreadPoolExecutor(2) as pool:

        def use(session: str) -> int:
            other = Wire(wire.url)
            with other.http:
                return int(other.sh(session, hold, timeout_ms=60_000)["exit_code"])

        assert 137 in set(pool.map(use, [one, two]))
        for session in one, two:
            wire.stdout(session, "for i in $(seq 25); do sleep 60 >/dev/null 2>&1 & done")
        count = int(wire.stdout(one, "cat /proc/[0-9]*/comm | grep -c sleep"))
        count += int(wire.stdout(two, "cat /proc/[0-9]*/comm | grep -c sleep"))
        assert count < 60
        limits = {
            (place.name, file.name): file.read_text().strip()
            for top in places
            for place in (top, *top.glob("[0-9]*"))
            for file in (*place.glob("cpu.max"), *place.glob("cpu.cfs_quota_us"))
        }
        assert {value.split()[0] for (name, _), value in limits.items() if name.startswith("agentbay")} == {"150000"}
        assert "50000" in {value.split()[0] for (name, _), value in limits.items() if name.isdigit()}


@pytest.mark.parametrize("option", TOGETHER)
def test_what_needs_groups(option: str):
    """Where nothing could hold a limit, the runtime refuses to start rather than to pretend."""
    child = Child(["-c", WITHOUT_GROUPS, option, TOGETHER[option]])
    try:
        assert (child.line, child.process.wait(30)) == ("", 1)
        assert f"{option} needs control groups" in child.complaints()
        assert "--max-sessions" in child.complaints()
    finally:
        child.release()


def test_the_default_has_no_such_limits():
    """Without options, a session has the limits that the documentation tells."""
    with embedded() as (_, wire), wire.session() as session:
        assert wire.stdout(session, "bash -c 'ulimit -n; ulimit -u'") == "4096\n256\n"
