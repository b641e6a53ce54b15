"""The way from a child of the zygote to the first process of a sandbox."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from agentbay.local.sandbox.shared import ipc, landlock, syscalls
from agentbay.local.sandbox.shared.sandbox_config import (
    SANDBOX_GID,
    SANDBOX_UID,
    JoinInfo,
    RlimitsConfig,
    SandboxConfig,
    SandboxTemplate,
)
from agentbay.local.sandbox.shared.syscalls import setup_step
from agentbay.local.sandbox.zygote import rlimits, rootfs

_ALL = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
    | syscalls.CLONE_NEWNET
)


@dataclass(frozen=True, slots=True)
class PreparedNamespaces:
    """Process 1 of a sandbox that is to be told which.

    Attributes:
        intermediate: A pidfd of the process between this one and the zygote, which goes away.
        mapper: A socket to that process, which writes the maps of the user namespace; None where that has been done.
    """

    intermediate_pidfd: int
    id_map_socket: socket.socket | None


def unshare_namespaces(frame: SandboxTemplate, channel: socket.socket) -> PreparedNamespaces:
    """Return as process 1 of new namespaces, with all prepared that does not depend on the plan.

    Root makes the namespaces as itself and enters a user namespace last, with a host uid that owns nothing: behind a
    sandbox's uid 1000 must never stand root. Anyone else enters the user namespace first, for the rights over the rest.

    Raises:
        SetupFailed: Names the step and the errno. Raised in whichever process met it.
    """
    owner = frame["owner"]
    uid, gid = os.geteuid(), os.getegid()  # in a new user namespace they read as nobody's
    with setup_step("unshare"):
        flags = _ALL & ~syscalls.CLONE_NEWNET if frame["host_network"] else _ALL
        syscalls.unshare(flags if owner else flags | syscalls.CLONE_NEWUSER)
    if not owner:
        with setup_step("uid_map"):
            _write("/proc/self/setgroups", "deny")
            _write_id_maps("/proc/self", uid, gid)
    embryo = _fork_init(channel, owner)
    if not frame["host_network"]:
        with setup_step("loopback"):
            syscalls.bring_up_loopback()
    rootfs.prepare_rootfs()
    return embryo


def complete_setup(embryo: PreparedNamespaces, plan: SandboxConfig, program: bytes) -> None:
    """Make this process the first of the sandbox that is planned, without any privilege.

    Args:
        program: The system call filter.

    Raises:
        SetupFailed: Names the step and the errno.
    """
    with setup_step("hostname"):
        socket.sethostname(plan["hostname"])
    rootfs.complete_rootfs(plan)
    if embryo.id_map_socket:
        _enter_user_namespace(embryo.id_map_socket)
    _drop_privileges(plan["limits"], program, plan["network"])
    _set_parent_death_signal(embryo.intermediate_pidfd)


def join_namespaces(fds: Sequence[int], entry: JoinInfo, program: bytes) -> None:
    """Enter the namespaces of a sandbox without any privilege; the children of this process will be seen there.

    Args:
        fds: The namespaces, in the order of `NAMESPACES`.
        entry: What the sandbox has told of itself.
        program: The system call filter.

    Raises:
        SetupFailed: Names the step and the errno.
    """
    root = os.geteuid() == 0
    with setup_step("setns"):
        for fd in fds if root else [fds[-1], *fds[:-1]]:
            syscalls.setns(fd)
        if root:
            os.setgroups([])
            os.setresgid(SANDBOX_GID, SANDBOX_GID, SANDBOX_GID)
            os.setresuid(SANDBOX_UID, SANDBOX_UID, SANDBOX_UID)
    _drop_privileges(entry["limits"], program, entry["network"])


def join_cgroups(doors: Sequence[int]) -> None:
    """Enter the control groups whose `cgroup.procs` files these are, before anything else: all that follows counts.

    Raises:
        SetupFailed: In the step "cgroup".
    """
    with setup_step("cgroup"):
        for door in doors:
            os.write(door, b"0")
            os.close(door)


def _fork_init(channel: socket.socket, owner: tuple[int, int] | None) -> PreparedNamespaces:
    """Fork process 1, tell the host its pid, and return in it; this process stays outside until it is not needed."""
    intermediate = os.pidfd_open(os.getpid())
    ours, theirs = socket.socketpair() if owner else (None, None)
    with setup_step("fork"):
        pid = os.fork()
    if pid == 0:
        if theirs:
            theirs.close()
        return PreparedNamespaces(intermediate, ours)
    pidfd = os.pidfd_open(pid)
    ipc.send(channel, {"event": "forked", "pid": pid}, [pidfd])
    if ours and theirs and owner:
        for done_with in (ours, channel):
            done_with.close()
        _serve_id_map_request(theirs, *owner)
    os._exit(0)


def _set_parent_death_signal(intermediate: int) -> None:
    """Have the kernel kill this process with the zygote: frozen, it cannot notice by itself that its host is gone."""
    # Only when the intermediate process has ended is the zygote the parent; before, the signal would come for that one.
    poll = select.poll()
    poll.register(intermediate, select.POLLIN)
    poll.poll()
    os.close(intermediate)
    with setup_step("prctl"):
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)


def _enter_user_namespace(mapper: socket.socket) -> None:
    """Enter a user namespace whose only user is a host uid that owns nothing; whoever stays outside writes the map."""
    with setup_step("unshare"):
        syscalls.unshare(syscalls.CLONE_NEWUSER)
    with setup_step("uid_map"), mapper:
        mapper.send(b"?")
        answer = mapper.recv(4)
        if code := int.from_bytes(answer) if answer else errno.ESRCH:
            raise OSError(code, os.strerror(code), "map the sandbox's uid")
        os.setgroups([])
        os.setresgid(SANDBOX_GID, SANDBOX_GID, SANDBOX_GID)
        os.setresuid(SANDBOX_UID, SANDBOX_UID, SANDBOX_UID)


def _serve_id_map_request(asked: socket.socket, uid: int, gid: int) -> None:
    """Write the maps of process 1 when it asks for them, unless it ends before."""
    if not asked.recv(1):
        return
    code = 0
    try:
        _write_id_maps("/proc/1", uid, gid)
    except OSError as error:
        code = error.errno or errno.EIO
    asked.send(code.to_bytes(4))


def _write_id_maps(process: str, uid: int, gid: int) -> None:
    _write(f"{process}/gid_map", f"{SANDBOX_GID} {gid} 1")
    _write(f"{process}/uid_map", f"{SANDBOX_UID} {uid} 1")


def _write(path: str, content: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, content.encode())
    finally:
        os.close(fd)


def _drop_privileges(own_limits: RlimitsConfig, program: bytes, network: str) -> None:
    with setup_step("limits"):
        rlimits.apply_rlimits(own_limits)
    with setup_step("capabilities"):
        syscalls.drop_capabilities()
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if network == "host":
        with setup_step("landlock"):
            landlock.block_abstract_sockets()  # in addition, where the kernel can: that network is the host's
    with setup_step("seccomp"):
        syscalls.install_seccomp_filter(program)
    with setup_step("prctl"):
        # closes /proc/1/{environ,maps,fd,...} and tracing to the sandbox's user, whose uid this process has
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
