"""The processes of a sandbox: a list for people, depths, memory, stopped threads."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from agentbay.local.sandbox.service.spec import ResourceUsage
from agentbay.local.sandbox.shared.proc_fs import (
    INIT_PID,
    ProcessTable,
    list_pids,
    read_proc_file,
    read_process,
    read_process_table,
)

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_MAX_COMMAND_BYTES = 2000  # bytes of a command line


class RunningProcess(NamedTuple):
    """One process as a person wants to see it.

    Attributes:
        command: Its command line, or its name in brackets if it has none.
        seconds: Seconds since it was started.
    """

    pid: int
    parent: int
    state: str
    command: str
    memory_bytes: int
    cpu_seconds: float
    seconds: float


def list_running(proc: int) -> list[RunningProcess]:
    """Describe every process but process 1 and its forks that run file operations."""
    init_command = read_proc_file(proc, f"{INIT_PID}/cmdline")
    return [
        found
        for pid in sorted(list_pids(proc))
        if pid != INIT_PID
        and (command := read_proc_file(proc, f"{pid}/cmdline")) != init_command
        and (found := _describe(proc, pid, command))
    ]


def _describe(proc: int, pid: int, command: bytes) -> RunningProcess | None:
    text = read_proc_file(proc, f"{pid}/stat")
    # The name may hold spaces and parentheses itself, so its end is the last one.
    name, _, rest = text.partition(b"(")[2].rpartition(b")")
    fields = rest.split()
    if not fields:
        return None
    shown = command[:_MAX_COMMAND_BYTES].rstrip(b"\0").replace(b"\0", b" ") or b"[" + name + b"]"
    return RunningProcess(
        pid=pid,
        parent=int(fields[1]),
        state=fields[0].decode(),
        command=shown.decode("utf-8", "replace"),
        memory_bytes=private_memory_bytes(proc, pid),
        cpu_seconds=sum(map(int, fields[11:13])) / _TICKS_PER_SECOND,
        seconds=max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / _TICKS_PER_SECOND),
    )


def measure_usage(proc: int, init_pid: int) -> ResourceUsage:
    """Return what all processes but the first use."""
    table = read_process_table(proc)
    if init_pid not in table and (process := read_process(proc, init_pid)):
        table[init_pid] = process
    own = [pid for pid, process in table.items() if pid != init_pid and not process.dead]
    return ResourceUsage(
        cpu_seconds=sum(process.cpu_ticks for process in table.values()) / _TICKS_PER_SECOND,
        memory_bytes=sum(private_memory_bytes(proc, pid) for pid in own),
        processes=len(own),
    )


def process_depths(table: ProcessTable) -> dict[int, int]:
    """Return how far below process 1 each process is."""
    found: dict[int, int] = {}
    for pid in table:
        depth, ancestor = 0, pid
        # bounded: a pid that was used again while the table was read could close a circle
        while ancestor != INIT_PID and ancestor in table and depth < len(table):
            ancestor = table[ancestor].parent
            depth += 1
        found[pid] = depth
    return found


def threads_stopped(proc: int, pid: int) -> bool:
    """Return whether every thread of `pid` is stopped or gone."""
    try:
        tasks = os.open(f"{pid}/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
    except FileNotFoundError:
        return True
    try:
        threads = [read_process(tasks, int(name)) for name in os.listdir(tasks)]
    except (FileNotFoundError, ProcessLookupError):
        return True
    finally:
        os.close(tasks)
    return all(thread is None or thread.stopped for thread in threads)


def private_memory_bytes(proc: int, pid: int) -> int:
    """Return the bytes of private and shared memory of a process, without mapped files."""
    status = read_proc_file(proc, f"{pid}/status")
    lines = [line.split() for line in status.splitlines() if line.startswith((b"RssAnon:", b"RssShmem:"))]
    return sum(int(line[1]) for line in lines) << 10
