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

_ATTRIBUTES = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
_DELETED = (
    "//deleted"  # suffix, in the list of mounts, of the source of a mount that hides credentials; it cannot be moved
)
_KERNEL_DIRECTORIES = ("/dev", "/proc")
# Without these features an upper layer holds whole files only, and refers to nothing below.
_OPTIONS = "metacopy=off,redirect_dir=off,index=off"
_UPPER, _LOWER = "run/upper", "run/lower"  # where the layers are while an overlay is made, below the new root


class _Ids(NamedTuple):
    """User namespaces for idmapped layers.

    Attributes:
        root: Shows files of root as those of the sandbox's user.
        owner: Shows files of the sandboxes' owner so; -1 if that is the user.
    """

    root: int
    owner: int


class _Submount(NamedTuple):
    path: str
    tree: int
    is_directory: bool


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
            os.makedirs(place, exist_ok=True)
            syscalls.attach_tree(_clone_own(writable["source"], owner_idmap), place)


def _mount_overlays(config: SandboxConfig, staging: str, owner_idmap: int) -> None:
    owner, user = config["owner"], config["host_ids"]
    if owner is None or user is None:
        raise OSError(1, "system directories can be made writable only if the runtime runs as root")
    ids = _Ids(idmap.open_root_idmap(user, f"{staging}/proc"), owner_idmap)
    for directory in (_UPPER, _LOWER):
        os.mkdir(directory)
    for writable in config["writable"]:
        if writable["is_overlay"]:
            _overlay_tree(writable["source"], staging, writable["target"].rstrip("/"), owner, ids)
    for directory in (_UPPER, _LOWER):
        os.rmdir(directory)
    os.close(ids.root)


def _overlay_tree(source: str, staging: str, target: str, owner: tuple[int, int], ids: _Ids) -> None:
    """Mount an overlay at a target, and one at each directory mount below it.

    Single files stay as they are, except those that hide credentials: they have to be mounted anew.
    """
    os.makedirs(staging + target, exist_ok=True)
    lower = syscalls.clone_mount(staging + target)
    submounts = [
        _Submount(path, syscalls.clone_mount(staging + path), os.path.isdir(staging + path))
        for path in _mounts_below(staging, target)
    ]
    _mount_overlay(f"{source}/0", lower, staging + target, owner, ids)
    for number, mount in enumerate(submounts, 1):
        if mount.is_directory and not mount.path.startswith(_KERNEL_DIRECTORIES):
            _mount_overlay(f"{source}/{number}", mount.tree, staging + mount.path, owner, ids)
        else:
            syscalls.attach_tree(mount.tree, staging + mount.path)


def _mount_overlay(source: str, lower: int, place: str, owner: tuple[int, int], ids: _Ids) -> None:
    os.mkdir(source)
    for name in ("upper", "work"):
        os.mkdir(f"{source}/{name}")
        os.chown(f"{source}/{name}", *owner)
    syscalls.idmap_tree(lower, ids.root)
    syscalls.attach_tree(lower, _LOWER)
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
