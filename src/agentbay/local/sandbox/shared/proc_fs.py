"""The processes of a sandbox, as its own /proc shows them.

A descriptor of that /proc lists the whole pid namespace and nothing else, from inside and from the host; a process
found there can be signalled through its directory, which never means another process that came later.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Set
from typing import NamedTuple

Table = Mapping[int, "Process"]

INIT_PID = 1
KILL = signal.SIGKILL
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_DEAD = "ZX"
_MAX_COMMAND_BYTES = 2000  # bytes of a command line
_STOPPED = "Tt" + _DEAD


class Process(NamedTuple):
    """One process; numbers are those of its pid namespace."""

    state: str
    parent: int
    session: int
    cpu_ticks: int  # of itself and of the children it has waited for

    @property
    def stopped(self) -> bool:
        """Whether it cannot run until it is continued."""
        return self.state in _STOPPED

    @property
    def dead(self) -> bool:
        """Whether it has ended and only waits to be reaped."""
        return self.state in _DEAD


class RunningProcess(NamedTuple):
    """One process as a person wants to see it.

    Attributes:
        command: Its command line; in brackets the name of one that has none.
        seconds: Since it was started.
    """

    pid: int
    parent: int
    state: str
    command: str
    memory_bytes: int
    cpu_seconds: float
    seconds: float


def list_running(proc: int) -> list[RunningProcess]:
    """Describe every process but the first, and those it has forked that have not become another program."""
    agent = read_proc_file(proc, f"{INIT_PID}/cmdline")
    return [
        found
        for pid in sorted(list_pids(proc))
        if pid != INIT_PID
        and (line := read_proc_file(proc, f"{pid}/cmdline")) != agent
        and (found := _describe(proc, pid, line))
    ]


def _describe(proc: int, pid: int, line: bytes) -> RunningProcess | None:
    text = read_proc_file(proc, f"{pid}/stat")
    name, _, rest = text.partition(b"(")[2].rpartition(b")")
    fields = rest.split()
    if not fields:
        return None
    command = line[:_MAX_COMMAND_BYTES].rstrip(b"\0").replace(b"\0", b" ") or b"[" + name + b"]"
    return RunningProcess(
        pid=pid,
        parent=int(fields[1]),
        state=fields[0].decode(),
        command=command.decode("utf-8", "replace"),
        memory_bytes=private_memory_bytes(proc, pid),
        cpu_seconds=sum(map(int, fields[11:13])) / TICKS_PER_SECOND,
        seconds=max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / TICKS_PER_SECOND),
    )


def read_process_table(proc: int) -> dict[int, Process]:
    """Return every process by pid."""
    table: dict[int, Process] = {}
    for pid in list_pids(proc):
        process = read_process(proc, pid)
        if process:
            table[pid] = process
    return table


class SubtreeProcFd(int):
    """A descriptor of the host's own /proc; a sandbox without a pid namespace is what descends from the process `top`.

    Any other integer stands for the /proc of a pid namespace.
    """

    root_pid: int

    def __new__(cls, fd: int, top: int) -> SubtreeProcFd:
        made = super().__new__(cls, fd)
        made.root_pid = top
        return made


def list_pids(proc: int) -> list[int]:
    """Return the pids there are, those of the dead who wait to be reaped too; without a namespace, not the first."""
    if isinstance(proc, SubtreeProcFd):
        return _descendants(proc, proc.root_pid)
    return [int(name) for name in os.listdir(proc) if name.isdigit()]


def _descendants(proc: int, top: int) -> list[int]:
    found = [top]
    for pid in found:  # which grows meanwhile
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:  # it has ended, and its children are another's
            continue
        for thread in threads:
            found += map(int, read_proc_file(proc, f"{pid}/task/{thread}/children").split())
    return found[1:]


def read_process(proc: int, pid: int) -> Process | None:
    """Return one process, or None if it is gone."""
    text = read_proc_file(proc, f"{pid}/stat")
    # the name, in parentheses, may hold anything
    fields = text[text.rfind(b")") + 2 :].split()
    if not fields:
        return None
    return Process(fields[0].decode(), int(fields[1]), int(fields[3]), sum(map(int, fields[11:15])))


def read_proc_file(proc: int, path: str) -> bytes:
    """Return a small file below this /proc, b"" if its process is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    except OSError:
        return b""
    try:
        return os.read(fd, 1 << 16)
    except ProcessLookupError:
        return b""
    finally:
        os.close(fd)


def threads_stopped(proc: int, pid: int) -> bool:
    """Whether every thread of `pid` is stopped or gone."""
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


def send_signal(proc: int, pid: int, number: int) -> bool:
    """Send a signal to a process of this /proc; False if it is gone."""
    try:
        directory = os.open(str(pid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
    except FileNotFoundError:
        return False
    try:
        signal.pidfd_send_signal(directory, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(directory)
    return True


def find_by_environment(proc: int, table: Table, mark: bytes) -> set[int]:
    """Return the processes that were started with `mark`, a whole `NAME=value`, in their environment."""
    return {pid for pid in table if mark in read_proc_file(proc, f"{pid}/environ").split(b"\0")}


def find_process_tree(root: int, table: Table, known: Set[int]) -> set[int]:
    """Return `root`, those known to be of its family, what descends from them, and who shares a session with any.

    The session catches those whose parent has died in between, which belong to process 1 now.
    """
    members = set(known)
    while True:
        sessions = {root} | {table[pid].session for pid in members}  # each command of an agent leads a session
        grown = {
            pid
            for pid, process in table.items()
            if pid == root or process.parent in members or process.session in sessions
        } | members
        if grown == members:
            return members
        members = grown


def process_depths(table: Table) -> dict[int, int]:
    """Return how far below process 1 each process stands."""
    found: dict[int, int] = {}
    for pid in table:
        depth, ancestor = 0, pid
        # bounded: a pid used again while the table was taken could close a circle
        while ancestor != INIT_PID and ancestor in table and depth < len(table):
            ancestor = table[ancestor].parent
            depth += 1
        found[pid] = depth
    return found


def private_memory_bytes(proc: int, pid: int) -> int:
    """Return the bytes that a process has in private and shared memory, those of mapped files not counted."""
    status = read_proc_file(proc, f"{pid}/status")
    lines = [line.split() for line in status.splitlines() if line.startswith((b"RssAnon:", b"RssShmem:"))]
    return sum(int(line[1]) for line in lines) << 10
