"""A program that mounts a directory of the host into a running sandbox.

It is not forked from the zygote: the service starts it on the host, and it joins the sandbox's mount namespace. Its
argument says what to mount, and holds the numbers of the descriptors of the sandbox's namespaces. It ends with status
0, or with an error message on standard error.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
from typing import Any

from agentbay.local.sandbox.shared import ipc, syscalls
from agentbay.local.sandbox.shared.sandbox_config import NAMESPACES
from agentbay.local.sandbox.zygote import idmap, owned_files, rootfs


def main(text: str) -> None:
    """Mount what the JSON object `text` says.

    Args:
        text: An object with `bind`, `owner`, `host_ids`, `mount_point_owner`, and `namespaces`, descriptors in the
            order of `NAMESPACES`.
    """
    order = json.loads(text)
    fds = dict(zip(NAMESPACES, order["namespaces"], strict=True))
    owner, host_ids = (tuple(order[name]) if order[name] else None for name in ("owner", "host_ids"))
    # The source is a path of the host, so it is cloned before this process joins the other mount namespace.
    if os.geteuid() != 0:
        tree = _clone_in_new_user_namespace(order)
    else:
        mount_idmap = idmap.open_idmap(owner, host_ids) if owner and host_ids and owner != host_ids else -1
        tree = rootfs.clone_bind_source(order["bind"], mount_idmap, None)
    if os.geteuid() != 0:
        # An ordinary user has the capability to join the mount namespace only inside its user namespace.
        syscalls.setns(fds["user"], syscalls.CLONE_NEWUSER)
    syscalls.setns(fds["mnt"], syscalls.CLONE_NEWNS)  # from here on, paths are those of the sandbox
    target = order["bind"]["target"]
    try:
        owned_files.make_mount_point(target, True, order["mount_point_owner"])
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        # the mount point is made below the root, which is read-only
        syscalls.make_writable("/")
        try:
            owned_files.make_mount_point(target, True, order["mount_point_owner"])
        finally:
            syscalls.make_read_only("/")
    syscalls.attach_tree(tree, target)
    with contextlib.suppress(OSError):
        os.utime(os.path.dirname(target))  # inotify does not report mounts; this wakes its watchers


def _clone_in_new_user_namespace(order: dict[str, Any]) -> int:
    """Clone the mount in new namespaces.

    An ordinary user may clone mounts only there.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # In a child, since this process must stay outside: it still has to join the sandbox's user namespace.
    if os.fork() == 0:
        uid, gid = os.geteuid(), os.getegid()
        syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
        for name, content in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(content)
        ipc.send(theirs, {}, [rootfs.clone_bind_source(order["bind"], -1, None)])
        os._exit(0)
    theirs.close()
    _, received = ipc.receive(ours)
    os.wait()
    return received[0]


if __name__ == "__main__":
    main(sys.argv[1])
