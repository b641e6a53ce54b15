"""What measurements share: durations, a runtime to measure, and what its processes use."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

KEY = "the-key-of-the-benchmark"


def machine() -> str:
    """Return what the machine is, and what else it does."""
    system = f"{platform.system()} {platform.release()}, {os.cpu_count()} processors"
    return f"{system}, Python {platform.python_version()}, user {os.geteuid()}, load {os.getloadavg()[0]:.1f}"


def timed(call: Callable[[], object], rounds: int = 1) -> list[float]:
    """Return the durations of calls in milliseconds."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        found.append((time.perf_counter() - began) * 1000)
    return found


async def timed_async(call: Callable[[], Awaitable[object]], rounds: int = 1) -> list[float]:
    """Return the durations of asynchronous calls in milliseconds."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        await call()
        found.append((time.perf_counter() - began) * 1000)
    return found


@contextmanager
def runtime(
    *options: str, program: tuple[str, ...] = ("-m", "agentbay.local"), **environment: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a runtime with the key `KEY`, and yield its URL and its process."""
    command = [sys.executable, *program, *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(KEY + "\n")
        child.stdin.flush()
        try:
            yield child.stdout.readline().split()[-1], child
        finally:
            child.stdin.close()


def descendants() -> set[int]:
    """Return all processes below this one."""
    parents = {pid: int(fields[1]) for pid, fields in _process_fields().items()}
    found = set[int]()
    while new := {pid for pid, parent in parents.items() if parent in found or parent == os.getpid()} - found:
        found |= new
    return found


def processor_seconds(pids: set[int], *, with_ended: bool = False) -> float:
    """Return the processor time of processes, if asked with that of their children that have ended."""
    fields, last = _process_fields(), 15 if with_ended else 13
    ticks = sum(sum(map(int, fields[pid][11:last])) for pid in pids if pid in fields)
    return ticks / os.sysconf("SC_CLK_TCK")


def _process_fields() -> dict[int, list[str]]:
    """Return the fields of /proc/N/stat after the name, by process."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            found[int(stat.parent.name)] = stat.read_text("utf-8", "replace").rpartition(")")[2].split()
    return found


def proportional_bytes(pids: set[int]) -> int:
    """Return the memory of processes, of which what several share is divided among them (PSS)."""
    kib = 0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
            kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kib << 10


def peak_mib(process: int | str = "self") -> int:
    """Return the peak memory of a process in MiB."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) >> 10
