"""A program of its own: show a directory of the host in a sandbox that runs already.

Its argument says what, and holds the numbers of the descriptors of the sandbox's namespaces. It ends with status 0, or
with a complaint on standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys

from agentbay.local.sandbox.shared import ipc, syscalls
from agentbay.local.sandbox.shared.sandbox_config import NAMESPACES
from agentbay.local.sandbox.zygote import rootfs


def main(text: str) -> None:
    """Do what the JSON object `text` says: `bind`, `owner`, and `namespaces` as descriptors in their usual order."""
    order = json.loads(text)
    fds = dict(zip(NAMESPACES, order["namespaces"], strict=True))
    tree = rootfs.clone_bind_source(order["bind"]) if os.geteuid() == 0 else _clone_in_new_user_namespace(order)
    if os.geteuid() != 0:
        syscalls.setns(fds["user"])
    syscalls.setns(fds["mnt"])  # and with it the root directory is the sandbox's
    target, owner = order["bind"]["target"], order["owner"] and tuple(order["owner"])
    try:
        rootfs.make_mount_point(target, True, owner)
    except OSError:  # below the root, which is read-only
        syscalls.make_writable("/")
        try:
            rootfs.make_mount_point(target, True, owner)
        finally:
            syscalls.make_read_only("/")
    syscalls.attach_tree(tree, target)
    with contextlib.suppress(OSError):
        os.utime(os.path.dirname(target))  # inotify has no word for a mount; this wakes who watches


def _clone_in_new_user_namespace(order: dict[str, object]) -> int:
    """Copy the mount in namespaces made for that: without privileges, one may do so in no other."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        uid, gid = os.geteuid(), os.getegid()
        syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
        for name, content in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(content)
        ipc.send(theirs, {}, [rootfs.clone_bind_source(order["bind"])])  # type: ignore[arg-type]
        os._exit(0)
    theirs.close()
    _, received = ipc.receive(ours)
    os.wait()
    return received[0]


if __name__ == "__main__":
    main(sys.argv[1])
