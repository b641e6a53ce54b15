"""What this machine can do, and what to do about what it cannot."""

from __future__ import annotations

import errno
import os
import signal
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from agentbay.local.sandbox import landlock, launcher, wire
from agentbay.local.sandbox.cgroups import Cgroups
from agentbay.local.sandbox.errors import IsolationUnavailable
from agentbay.local.sandbox.spec import Isolation, SandboxSpec
from agentbay.local.sandbox.syscalls import SetupFailed
from agentbay.local.sandbox.wire import Message

_REFUSED = (errno.EPERM, errno.EACCES)
_PATIENCE = 10.0  # seconds for a trial


@dataclass(frozen=True, slots=True)
class Rung:
    """A way to isolate, or a layer that adds to one, and whether a real trial of it worked."""

    name: str
    works: bool
    detail: str
    by_request: bool = False  # only if asked for by name: it leaves something open


_OFFERS: dict[Isolation, str] = {
    "namespaces": "user, mount, pid, network, ipc, uts and cgroup namespaces, no capabilities, a system call filter",
    "landlock": "files, signals and abstract sockets by Landlock, no capabilities, a system call filter",
    "none": "plain processes in directories of their own",
}
_EXPOSES: dict[str, str] = {
    "landlock": "session code has this machine's network, with all that listens on it, the runtime's port too; it "
    "reaches unix sockets by path, a container engine's for one; it sees the command lines of all processes; only "
    "control groups limit how many it starts; /home/wuying is known to the file API only, and /tmp is not its own.",
    "none": "session code can do all that {user} can: read and change files, see, signal and trace processes, the "
    "runtime with its key among them, use this machine's network, and outlive its session.",
}
_HOST_NETWORK = (
    "with --network host, session code reaches all that listens on this machine, the runtime's port too, and all that "
    "this machine can reach."
)


def examine() -> list[Rung]:
    """Try each way to isolate on this machine, and each layer that adds to them; the best comes first."""
    return [*(_examine(isolation) for isolation in _OFFERS), _examine_landlock(), _examine_groups()]


def exposure(isolation: str, network: str) -> str:
    """Say what is not defended; "" if nothing that one would expect to be."""
    if isolation in _EXPOSES:
        said = _EXPOSES[isolation].format(user="root" if os.geteuid() == 0 else "this user")
        return f"--isolation {isolation}: {said}"
    return _HOST_NETWORK if network == "host" else ""


def _examine(isolation: Isolation) -> Rung:
    try:
        launcher.check_machine()
        with tempfile.TemporaryDirectory(prefix="agentbay-trial-") as directory:
            _try(isolation, directory)
    except IsolationUnavailable as obstacle:
        return Rung(isolation, False, " ".join(obstacle.missing))
    except SetupFailed as failure:
        return Rung(isolation, False, explain(failure))
    risk = exposure(isolation, "")
    return Rung(isolation, True, f"{_OFFERS[isolation]}. {risk}" if risk else _OFFERS[isolation], bool(risk))


def _examine_landlock() -> Rung:
    found = landlock.version()
    if found >= landlock.NEEDED:
        return Rung("layer landlock", True, f"ABI {found}: also with --network host, no abstract sockets of the host")
    return Rung(
        "layer landlock",
        False,
        f"{_lack_of_landlock(found)} With --network host, abstract sockets of the host are open.",
    )


def _lack_of_landlock(found: int) -> str:
    if found == 0:
        return "The kernel offers no Landlock: it must be built with it, and have it in its boot parameter lsm."
    return f"The kernel offers Landlock ABI {found}: {landlock.NEEDED} is needed, which Linux 6.12 brought."


def _examine_groups() -> Rung:
    groups = Cgroups.find()
    if groups is None or not groups.controllers:
        lack = "no control group is writable: limits by rlimits and a watch, none on processors"
        return Rung("layer cgroups", False, f"{lack}. Start the runtime as root, or in a group delegated to its user.")
    return Rung("layer cgroups", True, f"limits by control groups: {', '.join(sorted(groups.controllers))}")


def explain(failure: SetupFailed) -> str:
    """Say in one or two sentences what the machine lacks and the way out."""
    return f"{_reason(failure.step, failure.code)} ({failure})"


def _reason(step: str, code: int) -> str:
    if step == "landlock":
        return _lack_of_landlock(landlock.version())
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


def _try(isolation: Isolation, directory: str) -> None:
    """Make a sandbox and kill it, without an event loop."""
    zygote = launcher.launch()
    try:
        spec = SandboxSpec(root=Path(directory))
        owner = launcher.sandbox_owner() if isolation == "namespaces" else None
        frame = launcher.frame(isolation, spec.network, owner)
        plan = launcher.plan(spec, frame)
        launcher.prepare(plan)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        zygote.socket.settimeout(_PATIENCE)
        ours.settimeout(_PATIENCE)
        with ours, theirs:
            wire.receive(zygote.socket)
            wire.send(zygote.socket, {"frame": frame}, [theirs.fileno()])
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
