"""Measure a session of the local runtime beside subprocesses, bubblewrap and sandlock.

    python benchmarks/runtime.py [rounds [live ...]]

All is measured through the HTTP client, at 1, 50 and 1,000 live sessions. "call" only reads labels: what a call costs
in any case. To create a session and to run a command take one such call, to pause, resume and delete two. Bubblewrap
and sandlock start a sandbox for each command, as they are mostly used. They are measured if they are there: `bwrap` as
a program, sandlock as a package of the Python that SANDLOCK_PYTHON names.

"whole" is a program from the start of its process to its end: the first one of README, and what does the same (a file
written, and read by a command in a new sandbox) with the peers.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from measure import machine, timed, timed_async

from agentbay import AsyncAgentBay, AsyncSession

TARGETS = {"create": 6.0, "first command": 3.0, "overhead": 0.6, "pause": 1.5, "resume": 1.5, "delete": 3.0}
BUBBLEWRAP = [
    "bwrap", "--unshare-all", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind", "/usr", "/usr",
    "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64",
]  # fmt: skip

README = Path(__file__).parents[1] / "README.md"
FIRST = re.search(r"`python first.py`:\n\n```python\n(.+?)```", README.read_text(encoding="utf-8"), re.DOTALL)
PEER_FIRST = """
import sys, tempfile
with tempfile.TemporaryDirectory() as home:
    with open(f"{home}/hello.txt", "w") as file:
        file.write("hello from a sandbox\\n")
    command = ["bash", "-c", f"cd {home}; cat hello.txt; pwd"]
"""
BUBBLEWRAP_FIRST = f"""{PEER_FIRST}
    import subprocess
    line = [*{BUBBLEWRAP}, "--bind", home, home, *command]
    print(subprocess.run(line, capture_output=True, check=True, text=True).stdout)
"""
SANDLOCK_BOX = """
    from sandlock import Sandbox
    readable = ["/usr", "/lib", "/lib64", "/bin", "/etc", "/dev", "/proc"]
    def run():
        done = Sandbox(fs_readable=readable, fs_writable=[home], cwd=home).run(command)
        assert done.success, done
        return done
"""
SANDLOCK_FIRST = f"{PEER_FIRST}{SANDLOCK_BOX}    print(run().stdout.decode())\n"
SANDLOCK_RUNS = f"""{PEER_FIRST}{SANDLOCK_BOX}
    import time
    command = ["bash", "-c", "true"]
    for _ in range(int(sys.argv[1])):
        began = time.perf_counter()
        run()
        print(1000 * (time.perf_counter() - began))
"""


def spawned(command: list[str], rounds: int) -> list[float]:
    """Return the durations of a plain subprocess in milliseconds."""
    return timed(lambda: subprocess.run(command, capture_output=True, check=True), rounds)


async def life(bay: AsyncAgentBay, found: dict[str, list[float]]) -> None:
    """Create, use and delete one session."""
    made: list[AsyncSession] = []

    async def create() -> None:
        made.append((await bay.create()).unwrap().session)  # type: ignore[arg-type]

    found["create"] += await timed_async(create)
    session = made[0]
    found["first command"] += await timed_async(lambda: session.command.run("true"))
    found["command"] += await timed_async(lambda: session.command.run("true"), 5)
    found["call"] += await timed_async(session.get_labels, 5)
    found["pause"] += await timed_async(session.pause)
    found["resume"] += await timed_async(session.resume)
    found["delete"] += await timed_async(session.delete)


def show(name: str, values: list[float], target: float | None = None) -> None:
    """Print a line with median, minimum and 95th percentile."""
    values = sorted(values)
    median, late = statistics.median(values), values[min(len(values) - 1, int(len(values) * 0.95))]
    verdict = "" if target is None else f"{target:>9.1f}  {'met' if median <= target else 'MISSED'}"
    print(f"{name:<34}{median:>9.2f}{values[0]:>9.2f}{late:>9.2f}{verdict}", flush=True)


async def creates_per_second(bay: AsyncAgentBay, clients: int = 8, count: int = 25) -> float:
    """Return how many sessions are created in a second by so many clients, each of which creates so many."""

    async def create() -> list[AsyncSession]:
        return [(await bay.create()).unwrap().session for _ in range(count)]

    began = time.perf_counter()
    made = await asyncio.gather(*(create() for _ in range(clients)))
    seconds = time.perf_counter() - began
    await asyncio.gather(*(session.delete() for sessions in made for session in sessions))
    return clients * count / seconds


def show_programs(rounds: int) -> None:
    """Measure programs from start to end, ours and those of the peers in turn."""
    assert FIRST is not None
    programs = {
        "whole: python -c pass": [sys.executable, "-c", "pass"],
        "whole: agentbay --help": [sys.executable, "-m", "agentbay", "--help"],
        "whole: README's first.py": [sys.executable, "-c", FIRST[1]],
    }
    if shutil.which("bwrap"):
        programs["whole: the same by bubblewrap"] = [sys.executable, "-c", BUBBLEWRAP_FIRST]
    if python := os.environ.get("SANDLOCK_PYTHON"):
        programs["whole: the same by sandlock"] = [python, "-c", SANDLOCK_FIRST]
    found: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, command in programs.items():
            found[name] += spawned(command, 1)
    for name, values in found.items():
        show(name, values)


def show_peers(rounds: int) -> None:
    """Measure a sandbox for each command, by the peers that are there."""
    if shutil.which("bwrap"):
        show("bubblewrap: bash -c true", spawned([*BUBBLEWRAP, "bash", "-c", "true"], rounds))
    else:
        print("bubblewrap is not installed")
    if python := os.environ.get("SANDLOCK_PYTHON"):
        done = subprocess.run([python, "-c", SANDLOCK_RUNS, str(rounds)], capture_output=True, text=True, check=True)
        show("sandlock: create and run it", [float(line) for line in done.stdout.split()])
    else:
        print("sandlock is left out: SANDLOCK_PYTHON names no Python")


async def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    stages = [int(text) for text in sys.argv[2:]] or [1, 50, 1000]
    print(f"{machine()}; milliseconds, {rounds} rounds")
    print(f"{'':<34}{'median':>9}{'min':>9}{'p95':>9}{'target':>9}")
    plain = spawned(["bash", "-c", "true"], rounds * 5)
    show("plain subprocess: bash -c true", plain)
    show_peers(rounds * 5)
    show_programs(min(rounds, 20))
    async with AsyncAgentBay.local() as bay:
        show("runtime: start, first answer", await timed_async(bay.list))
        alive = 0
        for stage in stages:
            while alive < stage - 1:
                batch = min(25, stage - 1 - alive)
                await asyncio.gather(*(bay.create() for _ in range(batch)))
                alive += batch
            found: dict[str, list[float]] = {
                name: [] for name in ("create", "first command", "command", "call", "pause", "resume", "delete")
            }
            for _ in range(rounds):
                await life(bay, found)
            print(f"-- {stage} live")
            for name, values in found.items():
                show(name, values, TARGETS.get(name))
            baseline = statistics.median(spawned(["bash", "-c", "true"], rounds))
            show("overhead of a command", [value - baseline for value in found["command"]], TARGETS["overhead"])
    async with AsyncAgentBay.local() as bay:
        print(f"-- another runtime\n{'creates a second, 8 clients':<34}{await creates_per_second(bay):>9.0f}")


if __name__ == "__main__":
    asyncio.run(main())
