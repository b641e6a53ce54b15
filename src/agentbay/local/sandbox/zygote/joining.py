"""Joining the control groups of a sandbox, without a lock of the whole machine.

To move a process with all its threads, the kernel takes a lock of the whole machine for which it waits up to 20 ms, and
meanwhile no group can be made, changed or removed. Moving one thread (version 1) or forking into a group (version 2)
does not need that lock.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from agentbay.local.sandbox.shared import syscalls
from agentbay.local.sandbox.shared.setup_errors import setup_step


def fork_into(entrances: list[int]) -> int:
    """Fork a child that begins in the group of version 2.

    Return 0 in the child.

    Args:
        entrances: What `Cgroup.open_entrances` has returned. Afterwards, those that the child still has to join.
    """
    directory = next((fd for fd in entrances if _is_directory(fd)), None)
    # Libraries with threads, such as OpenBLAS, have the C library stop them before it forks, and it does not know of
    # this fork. Afterwards they are stopped for good, so that only the first fork of a zygote has to be its own.
    if directory is None or len(os.listdir("/proc/self/task")) > 1:
        return os.fork()
    try:
        pid = syscalls.fork_into_cgroup(directory)
    except OSError:  # an old kernel, or a container that does not allow this call
        return os.fork()
    if pid == 0:
        entrances.remove(directory)
        os.close(directory)
    return pid


def join_cgroups(entrances: Sequence[int]) -> None:
    """Join control groups, and close their descriptors.

    This comes first, so that all that follows counts.

    Raises:
        SetupFailed: In the step "cgroup".
    """
    with setup_step("cgroup"):
        for fd in entrances:
            if _is_directory(fd):
                procs = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=fd)
                os.write(procs, b"0")
                os.close(procs)
            else:
                os.write(fd, b"0")
            os.close(fd)


def _is_directory(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)
