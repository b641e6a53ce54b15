"""The root file system of a sandbox.

A small read-only tmpfs holds the mount points; programs are bound read-only from the host, /proc, /dev and /tmp are
the sandbox's own, and its home and its Python environment lie on disk. Nothing else of the host is visible, except that
/proc/1/mountinfo names the host's directory behind home, /tmp and each bind.
"""

from __future__ import annotations

import os

from agentbay.local.sandbox.shared import dirfd, syscalls
from agentbay.local.sandbox.shared.fd_io import closing_fd
from agentbay.local.sandbox.shared.sandbox_config import (
    CLIENT_HOME,
    IMAGE_DIRECTORY,
    PYTHON_DIRECTORY,
    PYTHON_PREFIX,
    SANDBOX_GID,
    SANDBOX_UID,
    BindMountConfig,
    SandboxConfig,
    mount_point_owner,
    overlay_parts,
)
from agentbay.local.sandbox.shared.setup_errors import setup_step
from agentbay.local.sandbox.shared.syscalls import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_SLAVE,
)
from agentbay.local.sandbox.zygote import credential_files, idmap, overlay, writable
from agentbay.local.sandbox.zygote.owned_files import Ids, create_file, make_link, make_mount_point
from agentbay.local.sandbox.zygote.program_paths import PROGRAM_DIRECTORIES, PROGRAM_PATHS

_EMPTY_DIRECTORIES = (
    "dev/pts", "dev/shm", "etc", "home", "media", "mnt", PYTHON_PREFIX[1:], "proc", "root", "run", "srv",
    "sys", "tmp", "usr", "var",
)  # fmt: skip
DEVICE_NAMES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = {
    "dev/fd": "/proc/self/fd",
    "dev/stdin": "/proc/self/fd/0",
    "dev/stdout": "/proc/self/fd/1",
    "dev/stderr": "/proc/self/fd/2",
    "dev/ptmx": "pts/ptmx",
    "etc/mtab": "/proc/self/mounts",
    "var/run": "/run",
    "var/tmp": "/tmp",
}
# The host's would set another PATH than that of the sandbox.
_PROFILE = """\
if [ "${PS1-}" ] && [ "${BASH_VERSION-}" ] && [ -r /etc/bash.bashrc ]; then . /etc/bash.bashrc; fi
for i in /etc/profile.d/*.sh; do if [ -r "$i" ]; then . "$i"; fi; done
unset i
"""
_HOME_ALIASES = ("workspace", "home/user", "home/guest")  # homes of the cloud's images; links to the one home
_MAX_TERMINALS = 64  # of a sandbox; the machine has about 3,000
_READ_ONLY = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
_WRITABLE = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
_STAGING_MOUNT = "/sys"  # the new root until pivot_root; nothing is bound from there


def prepare_rootfs(root_ids: Ids | None) -> None:
    """Make the part of the root that all sandboxes share.

    Needs new mount and pid namespaces.

    Args:
        root_ids: The owner of what is made here.
    """
    mount_staging(root_ids)
    with setup_step("mount"):
        _make_skeleton(root_ids)
        _bind_programs(root_ids)
        credential_files.hide_credential_files()
        show_devices(root_ids)
    with setup_step("proc"):
        syscalls.mount("proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def mount_staging(owner: Ids | None) -> None:
    """Mount an empty file system as the working directory."""
    # With a umask of the service such as 0o077, the sandbox's user could not enter the mount points.
    os.umask(0o022)
    with setup_step("mount"):
        syscalls.set_mount_propagation(MS_SLAVE)  # mounts that the host makes until the setup completes still appear
        syscalls.mount("tmpfs", _STAGING_MOUNT, MS_NOSUID | MS_NODEV, f"size=16m,mode=755{_owner_options(owner)}")
        os.chdir(_STAGING_MOUNT)


def complete_rootfs(config: SandboxConfig, mount_idmap: int) -> None:
    """Complete the root of `prepare_rootfs` with what is this sandbox's own.

    Then pivot to it.
    """
    _write_etc(config)
    with setup_step("writable"):
        writable.mount_writable(config, _STAGING_MOUNT, mount_idmap)
    with setup_step("mount"):
        _bind_own_directories(config, mount_idmap)
    # Targets of binds may lie below directories that sandboxed code wrote to in an earlier life of this home. They are
    # resolved after pivot_root, so that a planted link cannot lead out (path traversal).
    with setup_step("bind"):
        trees = [clone_bind_source(bind, mount_idmap, config["root_ids"]) for bind in config["binds"]]
        kinds = [os.path.isdir(bind["source"]) for bind in config["binds"]]
    with setup_step("pivot_root"):
        syscalls.pivot_root(_STAGING_MOUNT)
    with setup_step("bind"):
        for bind, tree, is_directory in zip(config["binds"], trees, kinds, strict=True):
            make_mount_point(bind["target"], is_directory, mount_point_owner(bind["target"], config))
            syscalls.attach_tree(tree, bind["target"])
    with setup_step("mount"):
        # What the host mounts later must not appear in running sandboxes.
        syscalls.set_mount_propagation(MS_PRIVATE)
        # Last, because the mount points above are made in this file system.
        if not any(own["target"] == "/" for own in config["writable"]):
            syscalls.make_read_only("/")


def _make_skeleton(owner: Ids | None) -> None:
    for directory in _EMPTY_DIRECTORIES:
        make_mount_point(directory, True, owner)
    for link, target in LINKS.items():
        make_link(link, target, owner)
    create_file("etc/profile", _PROFILE, owner)


def _bind_programs(root_ids: Ids | None) -> None:
    for source in PROGRAM_PATHS:
        if os.path.islink(source) and source[1:] in PROGRAM_DIRECTORIES:
            make_link(source[1:], os.readlink(source), root_ids)
        elif os.path.exists(source):
            make_mount_point(source[1:], os.path.isdir(source), root_ids)
            syscalls.attach_tree(idmap.clone_programs(source, _READ_ONLY, root_ids), source[1:])


def show_devices(owner: Ids | None) -> None:
    """Mount the devices of a sandbox below `dev`."""
    for name in DEVICE_NAMES:
        create_file("dev/" + name, "", owner)
        syscalls.bind_mount("/dev/" + name, "dev/" + name, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)
    # A new instance: the terminals of the host and of other sandboxes must not be there to open.
    syscalls.mount(
        "devpts", "dev/pts", MS_NOSUID | MS_NOEXEC, f"newinstance,ptmxmode=0666,mode=620,max={_MAX_TERMINALS}"
    )
    syscalls.mount("tmpfs", "dev/shm", MS_NOSUID | MS_NODEV, f"size=256m,mode=1777{_owner_options(owner)}")


def _owner_options(owner: Ids | None) -> str:
    """Return the mount options that give the root of a tmpfs an owner."""
    return f",uid={owner[0]},gid={owner[1]}" if owner else ""


def _bind_own_directories(config: SandboxConfig, mount_idmap: int) -> None:
    home, root_ids = config["home"][1:], config["root_ids"]
    make_mount_point(home, True, root_ids)
    if config["layers"]:
        _show_overlay(config, mount_idmap)
    else:
        for name, target in (("home", home), ("tmp", "tmp"), (PYTHON_DIRECTORY, PYTHON_PREFIX[1:])):
            make_mount_point(target, True, root_ids)
            own = idmap.clone_idmapped(os.path.join(config["root"], name), _WRITABLE, mount_idmap)
            syscalls.attach_tree(own, target)
    for name in _HOME_ALIASES:
        if not any(_is_covered_by(bind, f"/{name}") for bind in config["binds"]):
            make_link(name, CLIENT_HOME, root_ids)


def _show_overlay(config: SandboxConfig, mount_idmap: int) -> None:
    """Show the sandbox's own directories over those that it started from."""
    parts = overlay_parts(config)
    own = os.path.join(config["root"], IMAGE_DIRECTORY)
    trees = overlay.clone_parts(config["layers"], own, mount_idmap, parts, config["host_ids"], "mnt")
    syscalls.unmount("mnt")
    for tree, target in zip(trees, parts.values(), strict=True):
        make_mount_point(target[1:], True, config["root_ids"])
        syscalls.attach_tree(tree, target[1:])


def _is_covered_by(bind: BindMountConfig, path: str) -> bool:
    """Return whether a bind hides that path.

    It is at the path, or is something of the host, such as a Python, below it.
    """
    return bind["target"] == path or (bind["read_only"] and bind["target"].startswith(f"{path}/"))


def clone_bind_source(bind: BindMountConfig, mount_idmap: int, root_ids: Ids | None) -> int:
    """Return a detached clone of the source of a bind, as a descriptor."""
    attributes = _READ_ONLY if bind["read_only"] else _WRITABLE
    if bind["is_program"]:
        return idmap.clone_programs(bind["source"], attributes, root_ids)
    if not bind["nofollow_root"]:
        return idmap.clone_idmapped(bind["source"], attributes, mount_idmap)
    with closing_fd(os.open(bind["nofollow_root"], dirfd.DIRECTORY_OPEN_FLAGS)) as top:
        below = bind["source"][len(bind["nofollow_root"]) :]
        with dirfd.open_directory(top, [part for part in below.split("/") if part]) as fd:
            # By descriptor: resolving the path again could follow a link that was put there since (TOCTOU).
            return idmap.clone_idmapped(f"/proc/self/fd/{fd}", attributes, mount_idmap)


def _write_etc(config: SandboxConfig) -> None:
    user, home = config["user"], config["home"]
    files = {
        "passwd": "root:x:0:0:root:/root:/bin/bash\n"
        f"{user}:x:{SANDBOX_UID}:{SANDBOX_GID}:{user}:{home}:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        "group": f"root:x:0:\n{user}:x:{SANDBOX_GID}:\nnogroup:x:65534:\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\n",
        **network_files(config),
    }
    for name, content in files.items():
        create_file("etc/" + name, content, config["root_ids"])


def network_files(config: SandboxConfig) -> dict[str, str]:
    """Return the files of /etc about the network, by name."""
    hostname = config["hostname"]
    return {
        "hosts": f"127.0.0.1 localhost {hostname}\n::1 localhost ip6-localhost ip6-loopback\n",
        "hostname": hostname + "\n",
        # No name server is reachable from another network: the egress proxy resolves names itself.
        "resolv.conf": _resolv_conf() if config["network"] == "host" else "",
    }


def _resolv_conf() -> str:
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:  # a host without name service
        return ""
