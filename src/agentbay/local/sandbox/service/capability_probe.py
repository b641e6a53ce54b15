"""The capability probe: what this machine can isolate, and what it lacks."""

from __future__ import annotations

import errno
import os
import signal
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from agentbay.local.sandbox.service import config_builder, zygote_process
from agentbay.local.sandbox.service.cgroups import CgroupManager
from agentbay.local.sandbox.service.errors import IsolationUnavailable
from agentbay.local.sandbox.service.spec import IsolationMode, SandboxSpec
from agentbay.local.sandbox.shared import ipc, landlock
from agentbay.local.sandbox.shared.ipc import Message
from agentbay.local.sandbox.shared.setup_errors import SetupFailed

_PERMISSION_ERRNOS = (errno.EPERM, errno.EACCES)
_TRIAL_TIMEOUT_SECONDS = 10.0  # seconds for a trial


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """A way to isolate, or an additional layer, and whether its trial worked."""

    name: str
    works: bool
    detail: str
    explicit_only: bool = False  # used only if asked for by name, since it leaves something open


_ISOLATION_DESCRIPTIONS: dict[IsolationMode, str] = {
    "namespaces": "user, mount, pid, network, ipc, uts and cgroup namespaces, no capabilities, a system call filter",
    "landlock": "files, signals and abstract sockets by Landlock, no capabilities, a system call filter",
    "none": "plain processes in directories of their own",
}
_ISOLATION_RISKS: dict[str, str] = {
    "landlock": "session code has this machine's network, with all that listens on it, the runtime's port too; it "
    "reaches unix sockets by path, a container engine's for one; it sees the command lines of all processes; only "
    "control groups limit how many it starts; it reads and changes shared memory files (/dev/shm) and terminals "
    "(/dev/pts) of {user}, and reads what is typed there; /home/wuying is known to the file API only, and /tmp is not "
    "its own.",
    "none": "session code can do all that {user} can: read and change files, see, signal and trace processes, the "
    "runtime with its key among them, use this machine's network, and outlive its session.",
}
_HOST_NETWORK_RISK = (
    "with --network host, session code reaches all that listens on this machine, the runtime's port too, and all that "
    "this machine can reach."
)


def probe_all() -> list[ProbeResult]:
    """Try each way to isolate and each additional layer.

    The best comes first.
    """
    return [
        *(_probe_isolation(isolation) for isolation in _ISOLATION_DESCRIPTIONS),
        _probe_landlock(),
        _probe_cgroups(),
    ]


def describe_exposure(isolation: str, network: str) -> str:
    """Return a warning of what this isolation leaves open, or ""."""
    if isolation in _ISOLATION_RISKS:
        risk = _ISOLATION_RISKS[isolation].format(user="root" if os.geteuid() == 0 else "this user")
        return f"--isolation {isolation}: {risk}"
    return _HOST_NETWORK_RISK if network == "host" else ""


def _probe_isolation(isolation: IsolationMode) -> ProbeResult:
    try:
        zygote_process.check_machine()
        with tempfile.TemporaryDirectory(prefix="agentbay-trial-") as directory:
            _make_trial_sandbox(isolation, directory)
    except IsolationUnavailable as obstacle:
        return ProbeResult(isolation, False, " ".join(obstacle.missing))
    except SetupFailed as failure:
        return ProbeResult(isolation, False, explain_failure(failure))
    risk = describe_exposure(isolation, "")
    return ProbeResult(
        isolation,
        True,
        f"{_ISOLATION_DESCRIPTIONS[isolation]}. {risk}" if risk else _ISOLATION_DESCRIPTIONS[isolation],
        bool(risk),
    )


def _probe_landlock() -> ProbeResult:
    found = landlock.abi_version()
    if found >= landlock.REQUIRED_ABI:
        return ProbeResult(
            "layer landlock", True, f"ABI {found}: also with --network host, no abstract sockets of the host"
        )
    return ProbeResult(
        "layer landlock",
        False,
        f"{_missing_landlock_message(found)} With --network host, abstract sockets of the host are open.",
    )


def _missing_landlock_message(found: int) -> str:
    if found == 0:
        return "The kernel offers no Landlock: it must be built with it, and have it in its boot parameter lsm."
    return f"The kernel offers Landlock ABI {found}: {landlock.REQUIRED_ABI} is needed, which Linux 6.12 brought."


def _probe_cgroups() -> ProbeResult:
    groups = CgroupManager.discover()
    if groups is None or not groups.controllers:
        obstacle = "no control group is writable: limits by rlimits and a watch, none on processors"
        return ProbeResult(
            "layer cgroups", False, f"{obstacle}. Start the runtime as root, or in a group delegated to its user."
        )
    return ProbeResult("layer cgroups", True, f"limits by control groups: {', '.join(sorted(groups.controllers))}")


def explain_failure(failure: SetupFailed) -> str:
    """Return one or two sentences on what the machine lacks and the way out."""
    return f"{_setup_failure_message(failure.step, failure.code)} ({failure})"


def _setup_failure_message(step: str, code: int) -> str:
    if step == "landlock":
        return _missing_landlock_message(landlock.abi_version())
    if code == errno.ENOSYS:
        return "The kernel is too old: Linux 5.14 or later is needed."
    if step == "unshare" and code == errno.ENOSPC:
        return "User namespaces are switched off: set the sysctl user.max_user_namespaces to 15000 or so."
    if code in _PERMISSION_ERRNOS and (step in ("unshare", "hostname") or (step == "loopback" and os.geteuid() == 0)):
        return _why_unshare_is_refused()
    if step in ("uid_map", "mount", "loopback", "bind") and code in _PERMISSION_ERRNOS:
        return (
            "AppArmor or another security module refuses rights inside user namespaces: set the sysctl "
            "kernel.apparmor_restrict_unprivileged_userns to 0, or give this Python a profile that allows userns. "
            "Start a container with --security-opt apparmor=unconfined and --security-opt label=disable."
        )
    if step == "proc" and code in _PERMISSION_ERRNOS:
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
        "This container may not make namespaces: start it as an ordinary user (--user 1000:1000) with "
        "--security-opt seccomp=unconfined and --security-opt systempaths=unconfined, as root with --cap-add SYS_ADMIN "
        "and NET_ADMIN too, or start the runtime outside of it."
    )


def _root_is_a_mount() -> bool:
    mounts = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    return any(line.split()[4] == "/" for line in mounts)


def _sysctl(name: str) -> str:
    try:
        return (Path("/proc/sys") / name).read_text().strip()
    except OSError:
        return ""


def _make_trial_sandbox(isolation: IsolationMode, directory: str) -> None:
    """Create a sandbox and kill it, without an event loop."""
    zygote = zygote_process.start_zygote()
    try:
        spec = SandboxSpec(root=Path(directory))
        owner = config_builder.sandbox_owner() if isolation == "namespaces" else None
        template = config_builder.make_template(spec, isolation, owner)
        config = config_builder.make_config(spec, template)
        config_builder.create_directories(config)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        zygote.socket.settimeout(_TRIAL_TIMEOUT_SECONDS)
        ours.settimeout(_TRIAL_TIMEOUT_SECONDS)
        with ours, theirs:
            ipc.receive(zygote.socket)
            ipc.send(zygote.socket, {"template": template}, [theirs.fileno()])
            ipc.send(ours, {"config": config})
            # The zygote's child has a copy; with this one open, its early end would go unnoticed until the timeout.
            theirs.close()
            _wait_for_ready(ours)
    except TimeoutError as error:
        raise SetupFailed("start", errno.ETIMEDOUT, "no answer from the zygote") from error
    finally:
        zygote.stop()


def _wait_for_ready(channel: socket.socket) -> None:
    pidfds: list[int] = []
    message: Message | None = {}
    while message is not None and message.get("event") != "ready":
        message, fds = ipc.receive(channel)
        pidfds += fds
        if message and message["event"] == "failed":
            raise SetupFailed(message["step"], message["code"], message["detail"])
    if message is None:
        raise SetupFailed("start", 0, "the process ended before it was ready")
    signal.pidfd_send_signal(pidfds[0], signal.SIGKILL)
    for fd in pidfds:
        os.close(fd)
