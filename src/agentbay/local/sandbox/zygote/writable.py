"""The further writable directories in the root of a sandbox, new ones and overlays.

An overlay shows what is there already, and keeps changes on the sandbox's own disk. Its layers are idmapped: in it, the
files of root belong to the sandbox's user. It is mounted outside of the user namespace, so the marks of overlayfs are
trusted attributes, which sandboxed code can neither read nor write.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from agentbay.local.sandbox.shared import syscalls
from agentbay.local.sandbox.shared.sandbox_config import SandboxConfig
from agentbay.local.sandbox.shared.syscalls import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MS_NODEV, MS_NOSUID
from agentbay.local.sandbox.zygote import credential_files, idmap
from agentbay.local.sandbox.zygote.owned_files import Ids, make_mount_point
from agentbay.local.sandbox.zygote.program_paths import is_of_machine

_ATTRIBUTES = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
# In the list of mounts, the source of a mount that hides credentials ends so. Such a mount cannot be moved.
_DELETED = "//deleted"
_KERNEL_DIRECTORIES = ("/dev", "/proc")
# Without these features an upper layer holds whole files only, and refers to nothing below.
_OPTIONS = "volatile,metacopy=off,redirect_dir=off,index=off"  # volatile: see `overlay.OPTIONS`
_UPPER, _LOWER = "run/upper", "run/lower"  # where the layers are while an overlay is made, below the new root


class _Ids(NamedTuple):
    """User namespaces for idmapped layers.

    Attributes:
        machine: Shows files of the machine's root as those of the sandbox's user.
        root: Shows files of the sandbox's root so.
        owner: Shows files of the sandboxes' owner so; -1 if that is the user.
    """

    machine: int
    root: int
    owner: int


class _Layer(NamedTuple):
    """A lower layer, detached, and the user namespace to map it with."""

    tree: int
    idmap: int


class _Mount(NamedTuple):
    path: str
    layer: _Layer
    is_overlaid: bool


def mount_writable(config: SandboxConfig, staging: str, owner_idmap: int) -> None:
    """Mount the writable directories of a config.

    Args:
        staging: Where the new root is, which is the working directory.
    """
    if any(writable["is_overlay"] for writable in config["writable"]):
        _mount_overlays(config, staging, owner_idmap)
        os.chdir(staging)  # an overlay of the whole root lies over the one before
        credential_files.hide_credential_files()
    for writable in config["writable"]:
        if not writable["is_overlay"] and not config["layers"]:  # else its layers have it
            place = staging + writable["target"]
            make_mount_point(place, True, config["root_ids"])
            syscalls.attach_tree(_clone_own(writable["source"], owner_idmap), place)


def _mount_overlays(config: SandboxConfig, staging: str, owner_idmap: int) -> None:
    owner, user, root = config["owner"], config["host_ids"], config["root_ids"]
    if owner is None or user is None or root is None:
        raise OSError(1, "system directories can be made writable only if the runtime runs as root")
    proc = f"{staging}/proc"
    ids = _Ids(idmap.open_idmap_from((0, 0), user, proc), idmap.open_idmap_from(root, user, proc), owner_idmap)
    for directory in (_UPPER, _LOWER):
        os.mkdir(directory)
    for writable in config["writable"]:
        if writable["is_overlay"]:
            _overlay_tree(writable["source"], staging, writable["target"].rstrip("/"), owner, ids)
    for directory in (_UPPER, _LOWER):
        os.rmdir(directory)
    for fd in (ids.machine, ids.root):
        os.close(fd)


def _overlay_tree(source: str, staging: str, target: str, owner: Ids, ids: _Ids) -> None:
    """Mount an overlay at a target, and one at each directory mount below it.

    Single files stay as they are, except those that hide credentials: they have to be mounted anew.
    """
    top = os.stat(staging)
    make_mount_point(staging + target, True, (top.st_uid, top.st_gid))
    mounts = [_Mount(target, _clone_lower(staging, target, ids), True)]
    for path in _mounts_below(staging, target):
        if os.path.isdir(staging + path) and not path.startswith(_KERNEL_DIRECTORIES):
            mounts.append(_Mount(path, _clone_lower(staging, path, ids), True))
        else:
            mounts.append(_Mount(path, _Layer(syscalls.clone_mount(staging + path), -1), False))
    for number, mount in enumerate(mounts):
        if mount.is_overlaid:
            _mount_overlay(f"{source}/{number}", mount.layer, staging + mount.path, owner, ids)
        else:
            syscalls.attach_tree(mount.layer.tree, staging + mount.path)


def _clone_lower(staging: str, path: str, ids: _Ids) -> _Layer:
    # What is mapped to the sandbox's root cannot be mapped to its user too, so that of the machine is cloned.
    if is_of_machine(path):
        return _Layer(syscalls.clone_mount(path), ids.machine)
    return _Layer(syscalls.clone_mount(staging + path), ids.root)


def _mount_overlay(source: str, lower: _Layer, place: str, owner: Ids, ids: _Ids) -> None:
    os.mkdir(source)
    for name in ("upper", "work"):
        os.mkdir(f"{source}/{name}")
        os.chown(f"{source}/{name}", *owner)
    syscalls.idmap_tree(lower.tree, lower.idmap)
    syscalls.attach_tree(lower.tree, _LOWER)
    syscalls.attach_tree(_clone_own(source, ids.owner), _UPPER)
    layers = f"lowerdir={_LOWER},upperdir={_UPPER}/upper,workdir={_UPPER}/work"
    syscalls.mount("overlay", place, MS_NOSUID | MS_NODEV, f"{layers},{_OPTIONS}")
    # The overlay has its own clones of both.
    for layer in (_UPPER, _LOWER):
        syscalls.unmount(layer)


def _clone_own(source: str, owner_idmap: int) -> int:
    tree = syscalls.clone_tree(source, _ATTRIBUTES)
    if owner_idmap >= 0:
        syscalls.idmap_tree(tree, owner_idmap)
    return tree


def _mounts_below(staging: str, target: str) -> Sequence[str]:
    """Return the paths of the mounts below a target, each after its parent.

    The new root is the working directory.
    """
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mounts = {line.split()[0]: line.split()[1:5] for line in file}
    top = os.open(".", os.O_PATH | os.O_CLOEXEC)
    with open(f"/proc/self/fdinfo/{top}", encoding="ascii") as file:
        root = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
    os.close(top)

    def is_below_root(mount: str) -> bool:
        # Mounts that the new root hides have paths of the same kind, so only their parents tell them apart.
        parent = mounts[mount][0]
        return parent == root or (parent in mounts and parent != mount and is_below_root(parent))

    paths = [
        place.removeprefix(staging)
        for mount, (*_, source, place) in mounts.items()
        if is_below_root(mount) and not source.endswith(_DELETED)
    ]
    return sorted((path for path in paths if path.startswith(f"{target}/")), key=lambda path: path.count("/"))
