"""What this machine can do, and what to do about what it cannot."""

from __future__ import annotations

import errno
import os
import signal
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from agentbay.local.sandbox import launcher, wire
from agentbay.local.sandbox.cgroups import Cgroups
from agentbay.local.sandbox.errors import IsolationUnavailable
from agentbay.local.sandbox.spec import SandboxSpec
from agentbay.local.sandbox.syscalls import SetupFailed
from agentbay.local.sandbox.wire import Message

_REFUSED = (errno.EPERM, errno.EACCES)
_PATIENCE = 10.0  # seconds for a trial


@dataclass(frozen=True, slots=True)
class Rung:
    """A way to isolate, and whether a real trial of it worked."""

    name: str
    works: bool
    detail: str


def examine() -> list[Rung]:
    """Try each way to isolate on this machine."""
    try:
        launcher.check_machine()
        with tempfile.TemporaryDirectory(prefix="agentbay-trial-") as directory:
            _try_namespaces(directory)
    except IsolationUnavailable as obstacle:
        return [Rung("namespaces", False, " ".join(obstacle.missing))]
    except SetupFailed as failure:
        return [Rung("namespaces", False, explain(failure))]
    detail = "user, mount, pid, network, ipc, uts and cgroup namespaces, seccomp"
    return [Rung("namespaces", True, f"{detail}; {_describe_limits()}")]


def _describe_limits() -> str:
    groups = Cgroups.find()
    if groups is None:
        return "limits by rlimits and a watchdog, since no control group is writable"
    return f"limits by control groups: {', '.join(sorted(groups.controllers)) or 'none'}"


def explain(failure: SetupFailed) -> str:
    """Say in one or two sentences what the machine lacks and the way out."""
    return f"{_reason(failure.step, failure.code)} ({failure})"


def _reason(step: str, code: int) -> str:
    if code == errno.ENOSYS:
        return "The kernel is too old: Linux 5.14 or later is needed."
    if step == "unshare" and code == errno.ENOSPC:
        return "User namespaces are switched off: set the sysctl user.max_user_namespaces to 15000 or so."
    if step == "unshare" and code in _REFUSED:
        return _why_unshare_is_refused()
    if step in ("uid_map", "mount", "loopback", "bind") and code in _REFUSED:
        return (
            "AppArmor or another security module refuses rights inside user namespaces: set the sysctl "
            "kernel.apparmor_restrict_unprivileged_userns to 0, or give this Python a profile that allows userns."
        )
    if step == "proc" and code in _REFUSED:
        return (
            "The container masks parts of /proc, so that the kernel mounts no other: start it with "
            "--security-opt systempaths=unconfined (Kubernetes: procMount: Unmasked)."
        )
    if step == "seccomp":
        return "The kernel offers no system call filters: it must be built with CONFIG_SECCOMP_FILTER."
    return f"Making a sandbox fails in the step {step}."


def _why_unshare_is_refused() -> str:
    if not _root_is_a_mount():
        return "The kernel allows no user namespaces in a plain chroot: start the runtime outside of it."
    if _sysctl("kernel/unprivileged_userns_clone") == "0":
        return "Ordinary users may not make user namespaces: set the sysctl kernel.unprivileged_userns_clone to 1."
    return (
        "This container may not make namespaces: start it with --security-opt seccomp=unconfined, "
        "and as root with --cap-add SYS_ADMIN too, or start the runtime outside of it."
    )


def _root_is_a_mount() -> bool:
    mounts = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    return any(line.split()[4] == "/" for line in mounts)


def _sysctl(name: str) -> str:
    try:
        return (Path("/proc/sys") / name).read_text().strip()
    except OSError:
        return ""


def _try_namespaces(directory: str) -> None:
    """Make a sandbox and kill it, without an event loop."""
    zygote = launcher.launch()
    try:
        plan = launcher.plan(SandboxSpec(root=Path(directory)))
        launcher.prepare(plan)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        zygote.socket.settimeout(_PATIENCE)
        ours.settimeout(_PATIENCE)
        with ours, theirs:
            wire.receive(zygote.socket)
            wire.send(zygote.socket, {}, [theirs.fileno()])
            wire.send(ours, {"plan": plan})
            theirs.close()
            _await_ready(ours)
    except TimeoutError as error:
        raise SetupFailed("start", errno.ETIMEDOUT, "no answer from the zygote") from error
    finally:
        zygote.stop()


def _await_ready(channel: socket.socket) -> None:
    pidfds: list[int] = []
    message: Message | None = {}
    while message is not None and message.get("event") != "ready":
        message, fds = wire.receive(channel)
        pidfds += fds
        if message and message["event"] == "failed":
            raise SetupFailed(message["step"], message["code"], message["detail"])
    if message is None:
        raise SetupFailed("start", 0, "the process ended before it was ready")
    signal.pidfd_send_signal(pidfds[0], signal.SIGKILL)
    for fd in pidfds:
        os.close(fd)
