"""The processes of a sandbox, as its own /proc shows them.

A descriptor of that /proc lists the whole pid namespace and nothing else, from inside and from the host; a process
found there can be signalled through its directory, which never means another process that came later.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Set
from typing import NamedTuple

Table = Mapping[int, "Process"]

INIT = 1
KILL = signal.SIGKILL
TICKS = os.sysconf("SC_CLK_TCK")
_DEAD = "ZX"
_STOPPED = "Tt" + _DEAD


class Process(NamedTuple):
    """One process; numbers are those of its pid namespace."""

    state: str
    parent: int
    session: int
    ticks: int  # of itself and of the children it has waited for

    @property
    def stopped(self) -> bool:
        """Whether it cannot run until it is continued."""
        return self.state in _STOPPED

    @property
    def dead(self) -> bool:
        """Whether it has ended and only waits to be reaped."""
        return self.state in _DEAD


def snapshot(proc: int) -> dict[int, Process]:
    """Return every process by pid."""
    table: dict[int, Process] = {}
    for pid in pids(proc):
        process = look(proc, pid)
        if process:
            table[pid] = process
    return table


def pids(proc: int) -> list[int]:
    """Return the pids there are, those of the dead who wait to be reaped too."""
    return [int(name) for name in os.listdir(proc) if name.isdigit()]


def look(proc: int, pid: int) -> Process | None:
    """Return one process, or None if it is gone."""
    text = read(proc, f"{pid}/stat")
    # the name, in parentheses, may hold anything
    fields = text[text.rfind(b")") + 2 :].split()
    if not fields:
        return None
    return Process(fields[0].decode(), int(fields[1]), int(fields[3]), sum(map(int, fields[11:15])))


def read(proc: int, path: str) -> bytes:
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
        threads = [look(tasks, int(name)) for name in os.listdir(tasks)]
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


def marked(proc: int, table: Table, mark: bytes) -> set[int]:
    """Return the processes that were started with `mark`, a whole `NAME=value`, in their environment."""
    return {pid for pid in table if mark in read(proc, f"{pid}/environ").split(b"\0")}


def family(root: int, table: Table, known: Set[int]) -> set[int]:
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


def depths(table: Table) -> dict[int, int]:
    """Return how far below process 1 each process stands."""
    found: dict[int, int] = {}
    for pid in table:
        depth, ancestor = 0, pid
        # bounded: a pid used again while the table was taken could close a circle
        while ancestor != INIT and ancestor in table and depth < len(table):
            ancestor = table[ancestor].parent
            depth += 1
        found[pid] = depth
    return found


def memory(proc: int, pid: int) -> int:
    """Return the bytes that a process has in private and shared memory, those of mapped files not counted."""
    status = read(proc, f"{pid}/status")
    lines = [line.split() for line in status.splitlines() if line.startswith((b"RssAnon:", b"RssShmem:"))]
    return sum(int(line[1]) for line in lines) << 10
