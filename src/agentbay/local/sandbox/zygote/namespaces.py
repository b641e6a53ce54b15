"""Namespaces: creating those of a sandbox, and joining them from outside.

Most functions run in process 1 before it gives up its privileges. `_serve_id_map_request` runs in the intermediate
process, the child of the zygote that stays outside; `join_namespaces` runs in a child of the kernel zygote.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
from collections.abc import Sequence
from typing import NamedTuple

from agentbay.local.sandbox.shared import ipc, landlock, syscalls
from agentbay.local.sandbox.shared.fd_io import closing_fd
from agentbay.local.sandbox.shared.sandbox_config import (
    JoinInfo,
    RlimitsConfig,
    SandboxConfig,
    SandboxTemplate,
    operations_uid,
)
from agentbay.local.sandbox.shared.setup_errors import setup_step
from agentbay.local.sandbox.zygote import idmap, image_rootfs, rlimits, rootfs

_ALL = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
    | syscalls.CLONE_NEWNET
)


# in the order of NAMESPACES
_KINDS = (
    syscalls.CLONE_NEWNS,
    syscalls.CLONE_NEWPID,
    syscalls.CLONE_NEWNET,
    syscalls.CLONE_NEWIPC,
    syscalls.CLONE_NEWUTS,
    syscalls.CLONE_NEWCGROUP,
    syscalls.CLONE_NEWUSER,
)
_INOTIFY_LIMIT = "/proc/sys/user/max_inotify_instances"  # of this user namespace
_MAX_INOTIFY_INSTANCES = 32  # of a sandbox; many machines allow 128 to each host uid


class PreparedNamespaces(NamedTuple):
    """Process 1 of a sandbox that has no config yet.

    Attributes:
        intermediate_pidfd: A pidfd of the process between this one and the zygote, which ends soon.
        id_map_socket: A socket to that process, which writes the id maps; None where they are written already.
        mount_idmap: A user namespace for idmapped mounts, -1 if the files' owner is the user.
    """

    intermediate_pidfd: int
    id_map_socket: socket.socket | None
    mount_idmap: int


def unshare_namespaces(template: SandboxTemplate, channel: socket.socket) -> PreparedNamespaces:
    """Become process 1 of new namespaces, as far as the template allows.

    What depends on the config is left to `enter_sandbox`.

    Root unshares as root and enters a user namespace last, with a host uid that owns nothing: the sandbox's uid 1000
    must never map to root. Any other user enters the user namespace first, for the capabilities over the others.

    Raises:
        SetupFailed: In whichever process the step failed.
    """
    owner, host_ids = template["owner"], template["host_ids"]
    mount_idmap = idmap.open_idmap(owner, host_ids) if owner and host_ids and owner != host_ids else -1
    uid, gid = os.geteuid(), os.getegid()  # in a new user namespace they read as 65534
    with setup_step("unshare"):
        flags = _ALL & ~syscalls.CLONE_NEWNET if template["host_network"] else _ALL
        syscalls.unshare(flags if host_ids else flags | syscalls.CLONE_NEWUSER)
    if not host_ids:
        with setup_step("uid_map"):
            # The kernel lets an ordinary user write a gid map only after this (user_namespaces(7)).
            _write("/proc/self/setgroups", "deny")
            _write_id_maps("/proc/self", template, uid, gid)
    prepared = _fork_init(channel, template, mount_idmap)
    if not template["host_network"]:
        with setup_step("loopback"):
            syscalls.bring_up_loopback()
    if template["has_image"]:
        image_rootfs.prepare(template["root_ids"])
    else:
        rootfs.prepare_rootfs(template["root_ids"])
    return prepared


def enter_sandbox(prepared: PreparedNamespaces, config: SandboxConfig) -> None:
    """Give this process the root and the user of the configured sandbox.

    `drop_privileges` must follow.

    Raises:
        SetupFailed: A step failed.
    """
    with setup_step("hostname"):
        socket.sethostname(config["hostname"])
    if config["has_image"]:
        image_rootfs.complete(config, prepared.mount_idmap)
    else:
        rootfs.complete_rootfs(config, prepared.mount_idmap)
    if prepared.mount_idmap >= 0:
        os.close(prepared.mount_idmap)
    if config["root_ids"]:
        idmap.close_programs_idmap(config["root_ids"])
    if prepared.id_map_socket:
        _enter_user_namespace(prepared.id_map_socket, config)
    with setup_step("sysctl"):
        _write(_INOTIFY_LIMIT, str(_MAX_INOTIFY_INSTANCES))
    if config["uid"] == 0 and not prepared.id_map_socket:
        with setup_step("proc"):
            # the uid 0 of the user namespace that its other namespaces belong to may change their settings
            syscalls.bind_mount("/proc/sys", "/proc/sys", syscalls.MOUNT_ATTR_RDONLY)


def join_namespaces(fds: Sequence[int], join_info: JoinInfo, seccomp_filter: bytes) -> None:
    """Join the namespaces of a sandbox and give up every privilege.

    Its pid namespace is that of the children of this process.

    Args:
        fds: The namespaces, in the order of `NAMESPACES`.
        join_info: What process 1 of the sandbox has sent.

    Raises:
        SetupFailed: A step failed.
    """
    root = os.geteuid() == 0
    with setup_step("setns"):
        # An ordinary user has capabilities over the others only inside the user namespace; root loses its own there.
        # Each must be of its kind: process 1 has sent them, and without its user namespace this would stay root's.
        kinds = list(zip(fds, _KINDS, strict=True))
        for fd, kind in kinds if root else [kinds[-1], *kinds[:-1]]:
            syscalls.setns(fd, kind)
        if root:
            # Changing the uid and gid keeps the supplementary groups, which would still open files of the host.
            os.setgroups([])
            _become(join_info["uid"], join_info["gid"])
    drop_privileges(join_info["limits"], seccomp_filter, join_info["network"])


def _fork_init(channel: socket.socket, template: SandboxTemplate, mount_idmap: int) -> PreparedNamespaces:
    """Fork process 1, send its pid to the service, and return in it.

    This process stays outside the new namespaces, and exits.
    """
    # Opened before the fork: seen from its new pid namespace, the child's parent has no pid.
    intermediate = os.pidfd_open(os.getpid())
    ours, theirs = socket.socketpair() if template["host_ids"] else (None, None)
    with setup_step("fork"):
        pid = os.fork()
    if pid == 0:
        if theirs:
            theirs.close()
        return PreparedNamespaces(intermediate, ours, mount_idmap)
    # The service kills by this pidfd, since a pid may have been given to another process by then.
    pidfd = os.pidfd_open(pid)
    ipc.send(channel, {"event": "forked", "pid": pid}, [pidfd])
    if ours and theirs:
        # A copy left open here would hide the end of process 1, from the service and from the wait below.
        for unused in (ours, channel):
            unused.close()
        _serve_id_map_request(theirs, template)
    os._exit(0)


def set_parent_death_signal(intermediate: int) -> None:
    """Have the kernel kill this process with the zygote.

    While frozen, it could not notice that the service is gone.
    """
    # the zygote is the parent only after the intermediate process has ended; before, its end would send the signal
    poll = select.poll()
    poll.register(intermediate, select.POLLIN)
    poll.poll()
    os.close(intermediate)
    with setup_step("prctl"):
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)


def _enter_user_namespace(mapper: socket.socket, config: SandboxConfig) -> None:
    """Enter a user namespace that maps one host uid, which owns nothing.

    The intermediate process writes the map.
    """
    with setup_step("unshare"):
        if host_ids := config["host_ids"]:
            # what the sandbox uses is charged to the creator of its user namespace too, which must not be root
            os.seteuid(host_ids[0])
            syscalls.raise_permitted_capabilities()  # some machines let nobody else create user namespaces
        syscalls.unshare(syscalls.CLONE_NEWUSER)
    with setup_step("uid_map"), mapper:
        mapper.send(b"?")
        answer = mapper.recv(4)
        if code := int.from_bytes(answer) if answer else errno.ESRCH:
            raise OSError(code, os.strerror(code), "map the sandbox's uid")
        os.setgroups([])
        _become(config["uid"], config["gid"])


def _become(uid: int, gid: int) -> None:
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _serve_id_map_request(requests: socket.socket, template: SandboxTemplate) -> None:
    """Write the id maps of process 1 when it asks for them."""
    if not requests.recv(1):
        return
    code = 0
    try:
        # pivot_root moves every process of a mount namespace, so this /proc is already the sandbox's.
        assert template["host_ids"] is not None
        uid, gid = template["host_ids"]
        _write_id_maps("/proc/1", template, uid, gid, has_operations_user=True)
    except OSError as error:
        code = error.errno or errno.EIO
    requests.send(code.to_bytes(4))


def _write_id_maps(
    process: str, template: SandboxTemplate, uid: int, gid: int, *, has_operations_user: bool = False
) -> None:
    uids, gids = {template["uid"]: uid}, {template["gid"]: gid}
    if has_operations_user:
        uids[operations_uid(template["uid"])] = uid + 1
    if root_ids := template["root_ids"]:  # only to be seen as the owner of files: no process has these
        uids[0] = root_ids[0]
        gids.setdefault(0, root_ids[1])
    for name, ids in (("gid_map", gids), ("uid_map", uids)):
        _write(f"{process}/{name}", "\n".join(f"{inside} {outside} 1" for inside, outside in ids.items()))


def has_operations_user(uid: int) -> bool:
    """Return whether file operations can have a uid of their own."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return any(line.split()[0] == str(operations_uid(uid)) for line in file)


def _write(path: str, content: str) -> None:
    with closing_fd(os.open(path, os.O_WRONLY | os.O_CLOEXEC)) as fd:
        os.write(fd, content.encode())


def drop_privileges(
    limits: RlimitsConfig, seccomp_filter: bytes, network: str, kept_capabilities: Sequence[int] = ()
) -> None:
    """Give up every privilege of this process, and of all that it starts.

    Args:
        kept_capabilities: Those that this process itself keeps over its user namespace.

    Raises:
        SetupFailed: A step failed.
    """
    with setup_step("limits"):
        rlimits.apply_rlimits(limits)
    with setup_step("capabilities"):
        # Otherwise uid 0 would gain capabilities by starting programs, and lose those kept by a change of its uid.
        syscalls.treat_root_as_any_user()
        syscalls.drop_capabilities(*kept_capabilities)
        # Set-uid programs would bring capabilities back, and without any the kernel takes no filter before this.
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if network == "host":
        with setup_step("landlock"):
            landlock.block_abstract_sockets()  # they belong to the network namespace, here the host's
    # Before the seccomp filter, which from then on only pretends to do this.
    with setup_step("prctl"):
        # the sandbox's user has the same uid: without this it could read /proc/1/{environ,maps,fd,...} and trace it
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    with setup_step("seccomp"):
        syscalls.install_seccomp_filter(seccomp_filter)
