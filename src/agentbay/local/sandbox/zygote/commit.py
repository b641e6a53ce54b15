"""Turning what a running sandbox has written into a read-only layer.

Its processes are frozen meanwhile. The sandbox gets a new overlay, with that layer below and an empty directory above.
The old mounts become read-only first, which the kernel refuses while a file there is open for writing. Then the
overlay takes their places: pivot_root(2) also moves every process whose root or working directory is exactly there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from agentbay.local.sandbox.shared import syscalls
from agentbay.local.sandbox.shared.sandbox_config import NAMESPACES, CommitOrder
from agentbay.local.sandbox.shared.setup_errors import setup_step
from agentbay.local.sandbox.zygote import idmap, overlay

_PLACE = "/sys"  # where the overlay is mounted aside, in a mount namespace of this process
_MOUNTINFO = "/proc/1/mountinfo"  # this process has no pid in the sandbox's pid namespace, so there is no /proc/self
_ESCAPED = re.compile(r"\\([0-7]{3})")


class _Mount(NamedTuple):
    number: str
    parent: str
    path: str


class _Replacement(NamedTuple):
    """A mount of the sandbox, and what takes its place.

    Attributes:
        old, new: Descriptors of both.
        below: The mounts that lie in the old one: descriptors by their paths in it.
    """

    old: int
    new: int
    below: dict[str, int]


def commit(order: CommitOrder, namespaces: Sequence[int]) -> None:
    """Give a running sandbox an overlay above what it has written.

    Raises:
        SetupFailed: In the step "busy", a file is open for writing. In the step "switch", the sandbox is half changed,
            and must end. In every other step, it is as before.
    """
    fds = dict(zip(NAMESPACES, namespaces, strict=True))
    owner, host_ids = order["owner"], order["host_ids"]
    mount_idmap = idmap.open_idmap(owner, host_ids) if owner and host_ids and owner != host_ids else -1
    with setup_step("unshare"):
        if os.geteuid() != 0:
            # An ordinary user has the capabilities for mounts only inside the sandbox's user namespace.
            syscalls.setns(fds["user"], syscalls.CLONE_NEWUSER)
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.set_mount_propagation(syscalls.MS_PRIVATE)
    parts = order["parts"]
    trees = overlay.clone_parts(order["layers"], order["own"], mount_idmap, parts, host_ids, _PLACE)
    with setup_step("setns"):
        syscalls.setns(fds["mnt"], syscalls.CLONE_NEWNS)  # from here on, paths are those of the sandbox
    with setup_step("mounts"):
        replacements = _find_replacements(dict(zip(parts.values(), trees, strict=True)))
    with _read_only(list(parts.values())), setup_step("switch"):
        for replacement in replacements:
            syscalls.setns(fds["mnt"], syscalls.CLONE_NEWNS)  # back to the root of the sandbox
            _replace(replacement)


@contextmanager
def _read_only(targets: Sequence[str]) -> Iterator[None]:
    """Make mounts read-only, or leave all as they are if one cannot be."""
    with ExitStack() as undo:
        for target in targets:
            with setup_step("busy"):
                syscalls.make_read_only(target)
            undo.callback(syscalls.make_writable, target)
        undo.pop_all()
    yield


def _find_replacements(trees: dict[str, int]) -> list[_Replacement]:
    """Open what is to be moved, before anything changes."""
    with open(_MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
        mounts = [_parse(line) for line in file]
    return [_find_replacement(target, new, mounts) for target, new in trees.items()]


def _find_replacement(target: str, new: int, mounts: Sequence[_Mount]) -> _Replacement:
    own = [mount for mount in mounts if mount.path == target]
    if len(own) != 1:
        raise OSError(0, f"there are {len(own)} mounts at {target}")
    below = [mount.path for mount in mounts if mount.parent == own[0].number]
    if len(set(below)) != len(below):
        raise OSError(0, f"mounts in {target} hide each other")
    prefix = target.rstrip("/") + "/"
    return _Replacement(_open(target), new, {path.removeprefix(prefix): _open(path) for path in below})


def _replace(replacement: _Replacement) -> None:
    os.fchdir(replacement.old)
    os.chroot(".")
    syscalls.move_mount(replacement.new, replacement.old, "")
    for path, mount in replacement.below.items():
        syscalls.move_mount(mount, replacement.new, path)
    os.fchdir(replacement.new)
    syscalls.pivot_root_here()


def _open(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)


def _parse(line: str) -> _Mount:
    number, parent, _, _, path = line.split(" ")[:5]
    return _Mount(number, parent, _ESCAPED.sub(lambda found: chr(int(found[1], 8)), path))
