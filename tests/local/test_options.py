"""The limits that options set, each met by code that goes beyond it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from subprocess import PIPE

import pytest

from agentbay.local.sandbox.service import cgroups
from tests.local.raw import Child, Refused, Wire, embedded
from tests.local.traces import eventually

EACH = {
    "--session-processes": "40",
    "--session-memory": "200MiB",
    "--session-disk": "60MiB",
    "--session-open-files": "100",
    "--output-limit": "1MiB",
}
TOGETHER = {"--memory": "300MiB", "--processes": "80"}
PROCESSORS = {"--session-cpus": "0.5", "--cpus": "1.5"}
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
from agentbay.local.sandbox.service import cgroups
cgroups._find_hierarchies = lambda mountinfo, membership: iter(())
from agentbay.local.__main__ import main
sys.exit(main())
"""


def groups() -> frozenset[str]:
    found = cgroups.CgroupManager.discover()
    return found.controllers if found else frozenset()


@pytest.fixture(scope="module", params=["groups", "no groups"])
def limited(request: pytest.FixtureRequest) -> Iterator[tuple[Wire, Child]]:
    """A runtime with limits, where control groups can be made and where they cannot."""
    given = EACH | TOGETHER
    if request.param == "groups":
        if not {"pids", "memory", "cpu"} <= groups():
            pytest.skip("no control groups can be made here")
        given |= PROCESSORS | {"--processes": "60"}
    options = [word for pair in given.items() for word in pair]
    start = ["-m", "agentbay.local"] if request.param == "groups" else ["-c", WITHOUT_GROUPS]
    with Child([*start, *options]) as child:
        wire = Wire(child.url)
        with wire.http:
            yield wire, child


def test_of_a_session(limited: tuple[Wire, Child]):
    """The options limit processes, memory, open files, output and disk of a session."""
    wire, _ = limited
    with wire.session() as session, wire.session() as other:
        count = int(wire.stdout(session, f"python3 -c '{FORKS}'"))
        assert 20 < count < 40
        assert wire.stdout(session, "ulimit -n") == "100\n"
        large = wire.sh(
            session, "python3 -c 'x = bytearray(b\"x\") * (600 << 20); import time; time.sleep(50)'", timeout_ms=60_000
        )
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


def test_memory_of_all_sessions(limited: tuple[Wire, Child]):
    """The options limit the memory of all sessions together."""
    wire, child = limited
    hold = "python3 -c 'x = bytearray(b\"x\") * (170 << 20); import time; time.sleep(60)'"
    with wire.session() as one, wire.session() as two, ThreadPoolExecutor(2) as pool:

        def use(session: str) -> dict[str, object]:
            other = Wire(wire.url)
            with other.http:
                return other.sh(session, hold, timeout_ms=60_000)

        killed, kept = wait([pool.submit(use, session) for session in (one, two)], return_when=FIRST_COMPLETED)
        assert len(kept) == 1
        ended = killed.pop().result()
        assert ended["exit_code"] == 137
        if WITHOUT_GROUPS in child.process.args:
            assert "all sessions together may use 300 MiB of memory" in str(ended["stderr"])
        for session in one, two:
            wire.stdout(session, "pkill python3 || true")
        assert kept.pop().result()["exit_code"] == 143  # it was there until now


@pytest.mark.parametrize("limited", ["groups"], indirect=True)
def test_processes_and_processors_of_all_sessions(limited: tuple[Wire, Child]):
    """The options limit what all sessions use together."""
    wire, child = limited
    # not by rglob, which fails where groups of others vanish meanwhile
    find = ["find", "/sys/fs/cgroup", "-name", f"agentbay-{child.process.pid}-*"]
    places = [Path(line) for line in subprocess.run(find, stdout=PIPE, text=True, check=False).stdout.splitlines()]
    with wire.session() as one, wire.session() as two:
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


@pytest.mark.parametrize("limited", ["no groups"], indirect=True)
def test_processes_of_all_sessions_without_groups(limited: tuple[Wire, Child]):
    """The processes of all sessions limit their number, and a deletion makes room."""
    wire, _ = limited
    with wire.session() as one, wire.session():
        with pytest.raises(Refused, match="--processes") as refused:
            wire.create()
        assert refused.value.code == "QuotaExceeded.Session"
        wire.data("DeleteSessionAsync", SessionId=one)
        assert eventually(lambda: wire.status(one) == "FINISH", 30)
        with wire.session() as other:
            assert wire.status(other) == "RUNNING"


@pytest.mark.parametrize(
    ("options", "said", "way_out"),
    [
        *((pair, f"{pair[0]} needs control groups (cpu)", "What holds without") for pair in PROCESSORS.items()),
        (("--processes", "100"), "100 is less than one session may have", "Lower --session-processes"),
        (("--processes", "100", "--isolation", "none"), "needs control groups (pids) or namespaces", "Leave it out"),
    ],
)
def test_what_nothing_could_hold(options: tuple[str, ...], said: str, way_out: str):
    """A runtime that cannot hold a limit refuses to start."""
    with Child(["-c", WITHOUT_GROUPS, *options]) as child:
        assert (child.line, child.process.wait(30)) == ("", 1)
        assert said in child.standard_error()
        assert way_out in child.standard_error()


def test_the_default_has_no_such_limits():
    """Without options, a session has the limits that the documentation tells."""
    with embedded() as (_, wire), wire.session() as session:
        assert wire.stdout(session, "bash -c 'ulimit -n; ulimit -u'") == "4096\n1024\n"
