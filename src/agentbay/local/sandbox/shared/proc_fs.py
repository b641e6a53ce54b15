"""The processes of a sandbox, read from its own /proc.

A descriptor of that /proc lists the whole pid namespace and nothing else, from inside and from the host. A signal goes
through the directory of the process, so that it never reaches a later process with the same pid (a race otherwise).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from agentbay.local.sandbox.shared.fd_io import closing_fd

INIT_PID = 1
_DEAD_STATES = "ZX"
_STOPPED_STATES = "Tt" + _DEAD_STATES


class Process(NamedTuple):
    """One process.

    Pids are those of its pid namespace.
    """

    state: str
    parent: int
    session: int
    cpu_ticks: int  # of itself and of the children it has waited for

    @property
    def stopped(self) -> bool:
        """Whether it cannot run until it is continued."""
        return self.state in _STOPPED_STATES

    @property
    def dead(self) -> bool:
        """Whether it has ended and is not reaped yet."""
        return self.state in _DEAD_STATES


ProcessTable = Mapping[int, Process]


class SubtreeProcFd(int):
    """A descriptor of the host's /proc, limited to the descendants of `root_pid`.

    It serves a sandbox without a pid namespace.

    Any other integer stands for the /proc of a pid namespace.
    """

    root_pid: int

    def __new__(cls, fd: int, root_pid: int) -> SubtreeProcFd:
        made = super().__new__(cls, fd)
        made.root_pid = root_pid
        return made


def read_process_table(proc: int) -> dict[int, Process]:
    """Return every process by pid."""
    processes = ((pid, read_process(proc, pid)) for pid in list_pids(proc))
    return {pid: process for pid, process in processes if process}


def list_pids(proc: int) -> list[int]:
    """Return all pids, those not reaped yet too.

    Without a pid namespace, not the first process.
    """
    if isinstance(proc, SubtreeProcFd):
        return _descendants(proc, proc.root_pid)
    # Opened anew, since threads that list by the same open directory share its offset, and miss entries.
    with closing_fd(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)) as directory:
        return [int(name) for name in os.listdir(directory) if name.isdigit()]


def list_tasks(proc: int, pid: int) -> list[str]:
    """Return the numbers of a process's threads."""
    with closing_fd(os.open(f"{pid}/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)) as directory:
        return os.listdir(directory)


def _descendants(proc: int, root_pid: int) -> list[int]:
    found = [root_pid]
    for pid in found:  # which grows meanwhile
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:  # it has ended, and its children have another parent
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


def send_signal(proc: int, pid: int, number: int) -> bool:
    """Send a signal to a process of this /proc.

    Return False if it is gone.
    """
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


def reap_children() -> Iterator[tuple[int, int]]:
    """Reap the children that have ended.

    Yield each pid with its exit code as a shell reports it.
    """
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            # There are no children at all.
            return
        if pid == 0:
            return
        code = os.waitstatus_to_exitcode(status)
        yield pid, code if code >= 0 else 128 - code
