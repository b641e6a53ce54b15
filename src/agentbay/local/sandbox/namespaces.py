"""The way from a child of the zygote to the first process of a sandbox."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Sequence

from agentbay.local.sandbox import landlock, limits, syscalls, view, wire
from agentbay.local.sandbox.plan import SANDBOX_GID, SANDBOX_UID, Entry, LimitsPlan, Plan
from agentbay.local.sandbox.syscalls import step

_ALL = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
    | syscalls.CLONE_NEWNET
)


def enter(plan: Plan, channel: socket.socket, program: bytes) -> None:
    """Return as process 1 of a new sandbox, without any privilege; the calling process ends.

    Root makes the namespaces as itself and enters a user namespace last, with a host uid that owns nothing: behind a
    sandbox's uid 1000 must never stand root. Anyone else enters the user namespace first, for the rights over the rest.

    Args:
        program: The system call filter.

    Raises:
        SetupFailed: Names the step and the errno. Raised in whichever process met it.
    """
    flags = _ALL & ~syscalls.CLONE_NEWNET if plan["network"] == "host" else _ALL
    owner = plan["owner"]
    uid, gid = os.geteuid(), os.getegid()  # in a new user namespace they read as nobody's
    with step("unshare"):
        syscalls.unshare(flags if owner else flags | syscalls.CLONE_NEWUSER)
    if not owner:
        with step("uid_map"):
            _write("/proc/self/setgroups", "deny")
            _write_maps("/proc/self", uid, gid)
    intermediate = _continue_as_init(channel)
    if plan["network"] != "host":
        with step("loopback"):
            syscalls.raise_loopback()
    with step("hostname"):
        socket.sethostname(plan["hostname"])
    view.build(plan)
    if owner:
        _become(*owner)
    _give_up_rights(plan["limits"], program, plan["network"])
    _die_with_parent(intermediate)


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


def _continue_as_init(channel: socket.socket) -> int:
    """Fork process 1, tell the host its pid, and return in it; the result is a pidfd of the process that goes away."""
    intermediate = os.pidfd_open(os.getpid())
    with step("fork"):
        pid = os.fork()
    if pid:
        pidfd = os.pidfd_open(pid)
        wire.send(channel, {"event": "forked", "pid": pid}, [pidfd])
        os._exit(0)
    return intermediate


def _die_with_parent(intermediate: int) -> None:
    """Have the kernel kill this process with the zygote: frozen, it cannot notice by itself that its host is gone."""
    # Only when the intermediate process has ended is the zygote the parent; before, the signal would come for that one.
    poll = select.poll()
    poll.register(intermediate, select.POLLIN)
    poll.poll()
    os.close(intermediate)
    with step("prctl"):
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)


def _become(uid: int, gid: int) -> None:
    """Enter a user namespace whose only user is the host's `uid`; a helper that stays outside writes the map."""
    entered, tell = os.pipe()
    with step("fork"):
        helper = os.fork()
    if helper == 0:
        os._exit(_map_init(entered, uid, gid))
    with step("unshare"):
        syscalls.unshare(syscalls.CLONE_NEWUSER)
    os.write(tell, b"x")
    _, status = os.waitpid(helper, 0)
    os.close(entered)
    os.close(tell)
    with step("uid_map"):
        if status:
            code = os.waitstatus_to_exitcode(status)
            raise OSError(code, os.strerror(code), f"map uid {uid}")
        os.setgroups([])
        os.setresgid(SANDBOX_GID, SANDBOX_GID, SANDBOX_GID)
        os.setresuid(SANDBOX_UID, SANDBOX_UID, SANDBOX_UID)


def _map_init(entered: int, uid: int, gid: int) -> int:
    os.read(entered, 1)
    try:
        _write_maps("/proc/1", uid, gid)
    except OSError as error:
        return error.errno or 1
    return 0


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
