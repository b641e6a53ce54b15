"""The way from a child of the zygote to the first process of a sandbox."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from agentbay.local.sandbox import landlock, limits, syscalls, view, wire
from agentbay.local.sandbox.plan import SANDBOX_GID, SANDBOX_UID, Entry, Frame, LimitsPlan, Plan
from agentbay.local.sandbox.syscalls import step

_ALL = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
    | syscalls.CLONE_NEWNET
)


@dataclass(frozen=True, slots=True)
class Embryo:
    """Process 1 of a sandbox that is to be told which.

    Attributes:
        intermediate: A pidfd of the process between this one and the zygote, which goes away.
        mapper: A socket to that process, which writes the maps of the user namespace; None where that has been done.
    """

    intermediate: int
    mapper: socket.socket | None


def conceive(frame: Frame, channel: socket.socket) -> Embryo:
    """Return as process 1 of new namespaces, with all prepared that does not depend on the plan.

    Root makes the namespaces as itself and enters a user namespace last, with a host uid that owns nothing: behind a
    sandbox's uid 1000 must never stand root. Anyone else enters the user namespace first, for the rights over the rest.

    Raises:
        SetupFailed: Names the step and the errno. Raised in whichever process met it.
    """
    owner = frame["owner"]
    uid, gid = os.geteuid(), os.getegid()  # in a new user namespace they read as nobody's
    with step("unshare"):
        flags = _ALL & ~syscalls.CLONE_NEWNET if frame["host_network"] else _ALL
        syscalls.unshare(flags if owner else flags | syscalls.CLONE_NEWUSER)
    if not owner:
        with step("uid_map"):
            _write("/proc/self/setgroups", "deny")
            _write_maps("/proc/self", uid, gid)
    embryo = _continue_as_init(channel, owner)
    if not frame["host_network"]:
        with step("loopback"):
            syscalls.raise_loopback()
    view.begin()
    return embryo


def enter(embryo: Embryo, plan: Plan, program: bytes) -> None:
    """Make this process the first of the sandbox that is planned, without any privilege.

    Args:
        program: The system call filter.

    Raises:
        SetupFailed: Names the step and the errno.
    """
    with step("hostname"):
        socket.sethostname(plan["hostname"])
    view.finish(plan)
    if embryo.mapper:
        _become_user(embryo.mapper)
    _give_up_rights(plan["limits"], program, plan["network"])
    _die_with_parent(embryo.intermediate)


def join(fds: Sequence[int], entry: Entry, program: bytes) -> None:
    """Enter the namespaces of a sandbox without any privilege; the children of this process will be seen there.

    Args:
        fds: The namespaces, in the order of `NAMESPACES`.
        entry: What the sandbox has told of itself.
        program: The system call filter.

    Raises:
        SetupFailed: Names the step and the errno.
    """
    root = os.geteuid() == 0
    with step("setns"):
        for fd in fds if root else [fds[-1], *fds[:-1]]:
            syscalls.setns(fd)
        if root:
            os.setgroups([])
            os.setresgid(SANDBOX_GID, SANDBOX_GID, SANDBOX_GID)
            os.setresuid(SANDBOX_UID, SANDBOX_UID, SANDBOX_UID)
    _give_up_rights(entry["limits"], program, entry["network"])


def enter_groups(doors: Sequence[int]) -> None:
    """Enter the control groups whose `cgroup.procs` files these are, before anything else: all that follows counts.

    Raises:
        SetupFailed: In the step "cgroup".
    """
    with step("cgroup"):
        for door in doors:
            os.write(door, b"0")
            os.close(door)


def _continue_as_init(channel: socket.socket, owner: tuple[int, int] | None) -> Embryo:
    """Fork process 1, tell the host its pid, and return in it; this process stays outside until it is not needed."""
    intermediate = os.pidfd_open(os.getpid())
    ours, theirs = socket.socketpair() if owner else (None, None)
    with step("fork"):
        pid = os.fork()
    if pid == 0:
        if theirs:
            theirs.close()
        return Embryo(intermediate, ours)
    pidfd = os.pidfd_open(pid)
    wire.send(channel, {"event": "forked", "pid": pid}, [pidfd])
    if ours and theirs and owner:
        for done_with in (ours, channel):
            done_with.close()
        _map_init(theirs, *owner)
    os._exit(0)


def _die_with_parent(intermediate: int) -> None:
    """Have the kernel kill this process with the zygote: frozen, it cannot notice by itself that its host is gone."""
    # Only when the intermediate process has ended is the zygote the parent; before, the signal would come for that one.
    poll = select.poll()
    poll.register(intermediate, select.POLLIN)
    poll.poll()
    os.close(intermediate)
    with step("prctl"):
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)


def _become_user(mapper: socket.socket) -> None:
    """Enter a user namespace whose only user is a host uid that owns nothing; whoever stays outside writes the map."""
    with step("unshare"):
        syscalls.unshare(syscalls.CLONE_NEWUSER)
    with step("uid_map"), mapper:
        mapper.send(b"?")
        answer = mapper.recv(4)
        if code := int.from_bytes(answer) if answer else errno.ESRCH:
            raise OSError(code, os.strerror(code), "map the sandbox's uid")
        os.setgroups([])
        os.setresgid(SANDBOX_GID, SANDBOX_GID, SANDBOX_GID)
        os.setresuid(SANDBOX_UID, SANDBOX_UID, SANDBOX_UID)


def _map_init(asked: socket.socket, uid: int, gid: int) -> None:
    """Write the maps of process 1 when it asks for them, unless it ends before."""
    if not asked.recv(1):
        return
    code = 0
    try:
        _write_maps("/proc/1", uid, gid)
    except OSError as error:
        code = error.errno or errno.EIO
    asked.send(code.to_bytes(4))


def _write_maps(process: str, uid: int, gid: int) -> None:
    _write(f"{process}/gid_map", f"{SANDBOX_GID} {gid} 1")
    _write(f"{process}/uid_map", f"{SANDBOX_UID} {uid} 1")


def _write(path: str, content: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, content.encode())
    finally:
        os.close(fd)


def _give_up_rights(own_limits: LimitsPlan, program: bytes, network: str) -> None:
    with step("limits"):
        limits.apply(own_limits)
    with step("capabilities"):
        syscalls.drop_capabilities()
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if network == "host":
        with step("landlock"):
            landlock.close_abstract_sockets()  # in addition, where the kernel can: that network is the host's
    with step("seccomp"):
        syscalls.install_filter(program)
    with step("prctl"):
        # closes /proc/1/{environ,maps,fd,...} and tracing to the sandbox's user, whose uid this process has
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
