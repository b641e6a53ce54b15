"""Idmapped mounts, which show one owner's files as a sandbox's host uid."""

from __future__ import annotations

import functools
import os
import signal
from contextlib import suppress

from agentbay.local.sandbox.shared import syscalls
from agentbay.local.sandbox.shared.setup_errors import setup_step
from agentbay.local.sandbox.zygote.owned_files import Ids


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


@functools.cache
def open_programs_idmap(root_uid: int, root_gid: int) -> int:
    """Return a user namespace that shows the machine's root as a sandbox's, or -1.

    The zygote opens it once, and its children have it too.
    """
    try:
        return open_idmap_from((0, 0), (root_uid, root_gid), "/proc")
    except OSError:  # programs then belong to nobody
        return -1


def close_programs_idmap(root_ids: Ids) -> None:
    """Close what `open_programs_idmap` has returned, in a child of the zygote."""
    if (fd := open_programs_idmap(*root_ids)) >= 0:
        os.close(fd)


def clone_programs(source: str, attributes: int, root_ids: Ids | None) -> int:
    """Return a detached clone whose files of root are the sandbox's root's.

    Where the file system cannot map ids, they stay nobody's.
    """
    tree = syscalls.clone_tree(source, attributes)
    if root_ids and (programs := open_programs_idmap(*root_ids)) >= 0:
        with suppress(OSError):
            syscalls.idmap_tree(tree, programs)
    return tree


def open_idmap_from(owner: Ids, user: Ids, proc: str) -> int:
    """Return a user namespace that maps `owner` to `user`, whose ids are higher.

    Other ids below the user's are mapped to themselves.

    Args:
        proc: Where the proc file system of this pid namespace is.
    """
    uid_map, gid_map = (
        "\n".join([f"0 0 {mine}"] * (mine > 0) + [f"{mine} {shown} 1", f"{mine + 1} {mine + 1} {shown - mine - 1}"])
        for mine, shown in zip(owner, user, strict=True)
    )
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
