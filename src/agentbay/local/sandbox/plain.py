"""The way to the first process of a sandbox that has no namespaces: a plain process with directories of its own.

With Landlock its files, signals and abstract sockets are confined, and a system call filter lies over it; without, it
may do all that the user of the runtime may do.
"""

from __future__ import annotations

import os
import socket

from agentbay.local.sandbox import landlock, limits, syscalls, view, wire
from agentbay.local.sandbox.plan import HOME, Plan
from agentbay.local.sandbox.syscalls import step

_READABLE = (
    *view.PROGRAMS, "/etc/group", "/etc/hosts", "/etc/nsswitch.conf", "/etc/passwd", "/etc/resolv.conf", "/proc",
)  # fmt: skip
_DEVICES = ("/dev/ptmx", "/dev/pts", "/dev/shm", *(f"/dev/{name}" for name in view.DEVICES))


def enter(plan: Plan, channel: socket.socket, program: bytes) -> None:
    """Become the first process of a sandbox; arguments as for `namespaces.enter`.

    Raises:
        SetupFailed: Names the step and the errno.
    """
    pidfd = os.pidfd_open(os.getpid())
    wire.send(channel, {"event": "forked", "pid": os.getpid()}, [pidfd])
    os.close(pidfd)
    os.setsid()
    os.umask(0o022)
    # who has lost its parent comes to this process, which can then still find and end it
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    with step("bind"):
        _link(plan)
    with step("limits"):
        # the kernel would count all processes of this user, also those that have nothing to do with it
        limits.apply({**plan["limits"], "processes": None})
    if plan["isolation"] == "landlock":
        with step("capabilities"):
            syscalls.drop_capabilities()
        with step("landlock"):
            landlock.confine(*_paths(plan))
        with step("seccomp"):
            syscalls.install_filter(program)
        with step("prctl"):
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)


def _link(plan: Plan) -> None:
    """Show what is to be bound by links; where the sandbox sees a path of its own only below its home."""
    for bind in plan["binds"]:
        if bind["source"] == bind["target"]:
            continue
        target = plan["home"] + bind["target"].removeprefix(HOME)
        if not bind["target"].startswith(HOME + "/"):
            raise OSError(1, f"without namespaces, only what is below {HOME} can be shown", bind["target"])
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.islink(target):
            os.unlink(target)
        os.symlink(bind["source"], target)


def _paths(plan: Plan) -> tuple[list[str], list[str]]:
    """Return what may be read, and what may be written too."""
    tmp = os.path.join(plan["root"], "tmp")
    readable = [bind["source"] for bind in plan["binds"] if bind["read_only"]]
    writable = [bind["source"] for bind in plan["binds"] if not bind["read_only"]]
    return [*_READABLE, *readable], [plan["home"], tmp, *_DEVICES, *writable]
