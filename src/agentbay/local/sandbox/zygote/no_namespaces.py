"""Setup of the first process of a sandbox that has no namespaces.

With Landlock its files, signals and abstract sockets are confined, and it has a system call filter; without, it may do
all that the user of the runtime may do.
"""

from __future__ import annotations

import os
import socket

from agentbay.local.sandbox.shared import ipc, landlock, syscalls
from agentbay.local.sandbox.shared.sandbox_config import CLIENT_HOME, SandboxConfig
from agentbay.local.sandbox.shared.setup_errors import setup_step
from agentbay.local.sandbox.zygote import program_paths, rlimits, rootfs

_READABLE = (
    *program_paths.PROGRAM_PATHS,
    "/etc/debian_version", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf", "/etc/passwd", "/etc/resolv.conf",
    "/proc",
)  # fmt: skip
_DEVICES = ("/dev/ptmx", "/dev/pts", "/dev/shm", *(f"/dev/{name}" for name in rootfs.DEVICE_NAMES))


def enter_sandbox(config: SandboxConfig, channel: socket.socket) -> None:
    """Make this the first process of the configured sandbox.

    `drop_privileges` must follow.

    Raises:
        SetupFailed: A step failed.
    """
    pidfd = os.pidfd_open(os.getpid())
    ipc.send(channel, {"event": "forked", "pid": os.getpid()}, [pidfd])
    os.close(pidfd)
    os.setsid()
    os.umask(0o022)
    # orphans become children of this process, which can then still find and kill them
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    with setup_step("bind"):
        _symlink_binds(config)


def drop_privileges(config: SandboxConfig, seccomp_filter: bytes) -> None:
    """Limit this process and all that it starts.

    Raises:
        SetupFailed: A step failed.
    """
    with setup_step("limits"):
        # the kernel would count all processes of this user, those of other programs too
        rlimits.apply_rlimits({**config["limits"], "processes": None})
    if config["isolation"] == "landlock":
        with setup_step("capabilities"):
            syscalls.drop_capabilities()
        with setup_step("landlock"):
            landlock.confine(*_landlock_paths(config))
        # Before the seccomp filter, which from then on only pretends to do this.
        with setup_step("prctl"):
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        with setup_step("seccomp"):
            syscalls.install_seccomp_filter(seccomp_filter)


def _symlink_binds(config: SandboxConfig) -> None:
    """Show the binds by symbolic links.

    Only paths below home can be shown so.
    """
    for bind in config["binds"]:
        if bind["source"] == bind["target"]:
            continue
        target = config["home"] + bind["target"].removeprefix(CLIENT_HOME)
        if not bind["target"].startswith(CLIENT_HOME + "/"):
            raise OSError(1, f"without namespaces, only what is below {CLIENT_HOME} can be shown", bind["target"])
        os.makedirs(os.path.dirname(target), exist_ok=True)
        # The home outlives its sandboxes, so a link of an earlier one may be here.
        if os.path.islink(target):
            os.unlink(target)
        os.symlink(bind["source"], target)


def _landlock_paths(config: SandboxConfig) -> tuple[list[str], list[str]]:
    """Return the paths that may be read, and those that may be written too."""
    tmp = os.path.join(config["root"], "tmp")
    readable = [bind["source"] for bind in config["binds"] if bind["read_only"]]
    writable = [bind["source"] for bind in config["binds"] if not bind["read_only"]]
    return [*_READABLE, *readable], [config["home"], tmp, config["python_prefix"], *_DEVICES, *writable]
