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
        # Ids without a mapping read as nobody (65534), so all those below the owner's are mapped to themselves.
        uid_map, gid_map = (f"0 0 {mine}\n{mine} {shown} 1" for mine, shown in zip(owner, user, strict=True))
        return _open_namespace(uid_map, gid_map, "/proc")


def clone_idmapped(source: str, attributes: int, idmap: int) -> int:
    """Return a detached clone with its owner mapped, as a descriptor."""
    tree = syscalls.clone_tree(source, attributes)
    if idmap >= 0:
        with setup_step("idmap"):  # not every file system can
            syscalls.idmap_tree(tree, idmap)
    return tree


def open_root_idmap(user: Ids, proc: str) -> int:
    """Return a user namespace that maps root to `user`.

    Ids below the user's are mapped to themselves.

    Args:
        proc: Where the proc file system of this pid namespace is.
    """
    uid_map, gid_map = (f"0 {shown} 1\n1 1 {shown - 1}" for shown in user)
    return _open_namespace(uid_map, gid_map, proc)


def _open_namespace(uid_map: str, gid_map: str, proc: str) -> int:
    # A user namespace lives only while something refers to it: the child does until the descriptor is open.
    pid = syscalls.fork_paused(syscalls.CLONE_NEWUSER)
    try:
        for name, content in (("gid_map", gid_map), ("uid_map", uid_map)):
            with open(f"{proc}/{pid}/{name}", "wb", buffering=0) as file:
                file.write(content.encode())
        return os.open(f"{proc}/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(pid, signal.SIGKILL)  # whoever is its parent after this process reaps it
