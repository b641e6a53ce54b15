"""The root file system of a sandbox that runs an image.

It is an overlay of the image's layers, which all sandboxes share, and a writable directory of the sandbox's own. /proc
and /dev are the sandbox's own too. What lies in an image is not trusted: its paths are resolved only when the overlay
is the root, so that its links lead nowhere else, and before /proc is there, whose links and files would show this
process what only root may see.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from agentbay.local.sandbox.shared import dirfd, syscalls
from agentbay.local.sandbox.shared.sandbox_config import (
    CLIENT_HOME,
    IMAGE_DIRECTORY,
    SandboxConfig,
)
from agentbay.local.sandbox.shared.setup_errors import setup_step
from agentbay.local.sandbox.shared.syscalls import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
)
from agentbay.local.sandbox.zygote import overlay, owned_files, rootfs

_STAGING_DIRECTORIES = ("dev/pts", "dev/shm", "proc", *overlay.STAGING_DIRECTORIES)
_DIRECTORIES = (CLIENT_HOME, "/tmp", "/proc", "/dev")
_TMP_MODE = 0o1777
_DEVICE_LINKS = {name: target for name, target in rootfs.LINKS.items() if name.startswith("dev/")}
_MAX_TEXT_CHARACTERS = 1 << 20  # of passwd and group
_PROC = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC


class _Clones(NamedTuple):
    """Detached mounts, made while the host's paths can still be seen."""

    dev: int
    proc: int
    binds: list[int]


def prepare(root_ids: owned_files.Ids | None) -> None:
    """Make what all sandboxes with images have in common.

    Needs new mount and pid namespaces.
    """
    rootfs.mount_staging(root_ids)
    with setup_step("mount"):
        for directory in _STAGING_DIRECTORIES:
            os.makedirs(directory)
        for link, target in _DEVICE_LINKS.items():
            owned_files.make_link(link, target, root_ids)
        rootfs.show_devices(root_ids)
    with setup_step("proc"):
        syscalls.mount("proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def complete(config: SandboxConfig, mount_idmap: int) -> None:
    """Mount the layers of an image, and make them the root.

    Raises:
        SetupFailed: A step failed.
    """
    with setup_step("overlay"):
        own = os.path.join(config["root"], IMAGE_DIRECTORY)
        overlay.mount_overlay(config["layers"], own, mount_idmap)
    with setup_step("bind"):
        clones = _Clones(
            syscalls.clone_tree("dev", 0),
            syscalls.clone_tree("proc", _PROC),
            [rootfs.clone_bind_source(bind, mount_idmap, config["root_ids"]) for bind in config["binds"]],
        )
        kinds = [os.path.isdir(bind["source"]) for bind in config["binds"]]
    with setup_step("pivot_root"):
        syscalls.pivot_root("root")
    with setup_step("bind"):
        _attach(clones, kinds, config)
    with setup_step("etc"):
        _write_etc(config)
    with setup_step("proc"):
        syscalls.attach_tree(clones.proc, "/proc")
    with setup_step("mount"):
        syscalls.set_mount_propagation(MS_PRIVATE)
        syscalls.make_read_only("/dev")


def _attach(clones: _Clones, kinds: list[bool], config: SandboxConfig) -> None:
    owner = config["host_ids"]
    for path in (*_DIRECTORIES, config["directory"], config["python_prefix"], *config["made_directories"]):
        owned_files.make_mount_point(path, True, owner)
    if stat.S_IMODE(os.stat("/tmp").st_mode) != _TMP_MODE:
        os.chmod("/tmp", _TMP_MODE)
    syscalls.attach_tree(clones.dev, "/dev")
    for bind, tree, is_directory in zip(config["binds"], clones.binds, kinds, strict=True):
        owned_files.make_mount_point(bind["target"], is_directory, owner)
        syscalls.attach_tree(tree, bind["target"])


def _write_etc(config: SandboxConfig) -> None:
    """Write what depends on the sandbox, and name its user."""
    owned_files.make_mount_point("/etc", True, config["host_ids"])
    contents = rootfs.network_files(config)
    uid, gid, user = config["uid"], config["gid"], config["user"]
    if (text := _missing_entry("passwd", uid, f"{user}:x:{uid}:{gid}:{user}:{config['home']}:/bin/sh")) is not None:
        contents["passwd"] = text
    if (text := _missing_entry("group", gid, f"{user}:x:{gid}:")) is not None:
        contents["group"] = text
    for name, content in contents.items():
        path = f"/etc/{name}"
        if _read_text(path) != content:
            if os.path.lexists(path):
                os.unlink(path)
            owned_files.create_file(path, content, config["host_ids"])


def _missing_entry(name: str, number: int, entry: str) -> str | None:
    """Return passwd or group with an entry for an id.

    It is None if the file has one."""
    text = _read_text(f"/etc/{name}") or ""
    if any(line.split(":")[2:3] == [str(number)] for line in text.splitlines()):
        return None
    return f"{text.rstrip()}\n{entry}\n".lstrip()


def _read_text(path: str) -> str | None:
    """Return the beginning of a file, or None if there is none.

    A link or a FIFO of the image counts as none.
    """
    try:
        fd = os.open(path, dirfd.FILE_OPEN_FLAGS)
    except OSError:
        return None
    with open(fd, encoding="utf-8", errors="replace") as file:
        return file.read(_MAX_TEXT_CHARACTERS) if stat.S_ISREG(os.fstat(fd).st_mode) else None
