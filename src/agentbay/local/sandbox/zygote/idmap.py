"""Idmapped mounts, which show one owner's files as a sandbox's host uid."""

from __future__ import annotations

import os
import signal

from agentbay.local.sandbox.shared import syscalls
from agentbay.local.sandbox.shared.setup_errors import setup_step

Ids = tuple[int, int]


def open_idmap(owner: Ids, user: Ids) -> int:
    """Return a user namespace that maps `owner` to `user` for idmapped mounts.

    Raises:
        SetupFailed: In the step "idmap".
    """
    with setup_step("idmap"):
        # A user namespace lives only while something refers to it: the child does until the descriptor is open.
        pid = syscalls.fork_paused(syscalls.CLONE_NEWUSER)
        try:
            # Ids without a mapping read as nobody (65534), so all those below the owner's are mapped to themselves.
            for name, on_disk, shown in (("gid_map", owner[1], user[1]), ("uid_map", owner[0], user[0])):
                with open(f"/proc/{pid}/{name}", "wb", buffering=0) as file:
                    file.write(f"0 0 {on_disk}\n{on_disk} {shown} 1".encode())
            return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.kill(pid, signal.SIGKILL)  # whoever is its parent after this process reaps it
