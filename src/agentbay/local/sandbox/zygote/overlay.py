"""Overlays of shared layers and a directory of one sandbox's own.

The latter gets all changes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from agentbay.local.sandbox.shared import syscalls
from agentbay.local.sandbox.shared.sandbox_config import UPPER_DIRECTORY, WORK_DIRECTORY
from agentbay.local.sandbox.shared.setup_errors import setup_step
from agentbay.local.sandbox.shared.syscalls import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_NODEV,
    MS_NOSUID,
)
from agentbay.local.sandbox.zygote import idmap

STAGING_DIRECTORIES = ("layers/own", "root")  # must be in the working directory
# userxattr: the only marks of directories that an ordinary user can set, so all layers have these
# volatile: files of a session need not survive the machine. Otherwise the end of each overlay would wait until the disk
# has all that anybody has written to its file system, and each file that is changed first would be written at once.
OPTIONS = "userxattr,volatile"
_WRITABLE = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
_LAYER = _WRITABLE | MOUNT_ATTR_RDONLY


def mount_overlay(layers: Sequence[str], own: str, mount_idmap: int) -> None:
    """Mount an overlay on `root`, in the working directory.

    Args:
        layers: The lowest first.
        own: Holds the upper and the work directory.
    """
    # Short names relative to the working directory: the options of a mount fit into one page.
    syscalls.attach_tree(idmap.clone_idmapped(own, _WRITABLE, mount_idmap), "layers/own")
    for number, layer in enumerate(layers):
        os.mkdir(f"layers/{number}")
        syscalls.attach_tree(idmap.clone_idmapped(layer, _LAYER, mount_idmap), f"layers/{number}")
    os.chdir("layers")
    lower = ":".join(str(number) for number in reversed(range(len(layers))))
    places = f"lowerdir={lower},upperdir=own/{UPPER_DIRECTORY},workdir=own/{WORK_DIRECTORY}"
    syscalls.mount("overlay", "../root", MS_NOSUID | MS_NODEV, f"{OPTIONS},{places}")
    os.chdir("..")


def clone_parts(
    layers: Sequence[str], own: str, mount_idmap: int, parts: Iterable[str], owner: tuple[int, int] | None, place: str
) -> list[int]:
    """Mount an overlay aside, and return directories of it as detached mounts.

    Args:
        parts: The directories, which are made if they are missing.
        owner: Who gets those.
        place: Where the overlay stays mounted.
    """
    before = os.getcwd()
    with setup_step("overlay"):
        syscalls.mount("tmpfs", place, MS_NOSUID | MS_NODEV, "size=1m,mode=700")
        os.chdir(place)
        for directory in STAGING_DIRECTORIES:
            os.makedirs(directory)
        mount_overlay(layers, own, mount_idmap)
        trees = []
        for part in parts:
            if not os.path.isdir(path := f"root/{part}"):
                os.makedirs(path)
                if owner:
                    os.chown(path, *owner)
            trees.append(syscalls.clone_mount(path))
        os.chdir(before)
    return trees
