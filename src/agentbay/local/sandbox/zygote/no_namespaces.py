"""The way to the first process of a sandbox that has no namespaces: a plain process with directories of its own.

With Landlock its files, signals and abstract sockets are confined, and a system call filter lies over it; without, it
may do all that the user of the runtime may do.
"""

from __future__ import annotations

import os
import socket

from agentbay.local.sandbox.shared import ipc, landlock, syscalls
from agentbay.local.sandbox.shared.sandbox_config import CLIENT_HOME, SandboxConfig
from agentbay.local.sandbox.shared.syscalls import setup_step
from agentbay.local.sandbox.zygote import rlimits, rootfs

_READABLE = (
    *rootfs.HOST_PROGRAM_PATHS,
    "/etc/group", "/etc/hosts", "/etc/nsswitch.conf", "/etc/passwd", "/etc/resolv.conf", "/proc",
)  # fmt: skip
_DEVICES = ("/dev/ptmx", "/dev/pts", "/dev/shm", *(f"/dev/{name}" for name in rootfs.DEVICE_NAMES))


def complete_setup(plan: SandboxConfig, channel: socket.socket, program: bytes) -> None:
    """Become the first process of a sandbox; arguments as for `namespaces.enter`.

    Raises:
        SetupFailed: Names the step and the errno.
    """
    pidfd = os.pidfd_open(os.getpid())
    ipc.send(channel, {"event": "forked", "pid": os.getpid()}, [pidfd])
    os.close(pidfd)
    os.setsid()
    os.umask(0o022)
    # who has lost its parent comes to this process, which can then still find and end it
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    with setup_step("bind"):
        _symlink_binds(plan)
    with setup_step("limits"):
        # the kernel would count all processes of this user, also those that have nothing to do with it
        rlimits.apply_rlimits({**plan["limits"], "processes": None})
    if plan["isolation"] == "landlock":
        with setup_step("capabilities"):
            syscalls.drop_capabilities()
        with setup_step("landlock"):
            landlock.confine(*_landlock_paths(plan))
        with setup_step("seccomp"):
            syscalls.install_seccomp_filter(program)
        with setup_step("prctl"):
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)


def _symlink_binds(plan: SandboxConfig) -> None:
    """Show what is to be bound by links; where the sandbox sees a path of its own only below its home."""
    for bind in plan["binds"]:
        if bind["source"] == bind["target"]:
            continue
        target = plan["home"] + bind["target"].removeprefix(CLIENT_HOME)
        if not bind["target"].startswith(CLIENT_HOME + "/"):
            raise OSError(1, f"without namespaces, only what is below {CLIENT_HOME} can be shown", bind["target"])
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.islink(target):
            os.unlink(target)
        os.symlink(bind["source"], target)


def _landlock_paths(plan: SandboxConfig) -> tuple[list[str], list[str]]:
    """Return what may be read, and what may be written too."""
    tmp = os.path.join(plan["root"], "tmp")
    readable = [bind["source"] for bind in plan["binds"] if bind["read_only"]]
    writable = [bind["source"] for bind in plan["binds"] if not bind["read_only"]]
    return [*_READABLE, *readable], [plan["home"], tmp, *_DEVICES, *writable]
