"""What a path means in a stack of layers, as with overlayfs.

Layers hold links that anybody chose, so every directory is opened from its parent, and no link is followed by the
kernel.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from agentbay.local.images.errors import DamagedImage
from agentbay.local.sandbox.shared import dirfd
from agentbay.local.sandbox.shared.fd_io import closing_fd

Parts = tuple[str, ...]
OPAQUE_ATTRIBUTE = "user.overlay.opaque"  # overlayfs: hides the entries that lower layers have in a directory
MAX_LINKS = 40  # as the kernel follows in one path
MAX_STEPS = 500  # in one path, and so parts of what it leads to


class Found(NamedTuple):
    """What a path leads to.

    Attributes:
        kind: "directory", "symlink", "file" or "other".
        depth: The layer that has it, 0 for the highest.
    """

    kind: str
    mode: int
    mtime: float
    depth: int
    target: str


class _LinkBudget:
    """How many links and steps of one path may still be followed."""

    def __init__(self) -> None:
        self.links, self.steps = MAX_LINKS, MAX_STEPS


class MergedView:
    """A stack of directories, the highest first."""

    def __init__(self, layers: Sequence[str]) -> None:
        self._tops = [os.open(layer, dirfd.DIRECTORY_OPEN_FLAGS) for layer in layers]
        self._real: dict[Parts, Parts] = {}

    def close(self) -> None:
        """Close the layers."""
        for fd in self._tops:
            os.close(fd)
        self._tops.clear()

    def forget(self, made: Parts | None = None) -> None:
        """Drop cached paths, since the highest layer has changed.

        Args:
            made: The real path of a directory that is new; None means any change.
        """
        if made is None or self._real.get(made, made) != made:
            self._real.clear()

    def real_directory(self, parts: Parts) -> Parts:
        """Return a directory's path with all links resolved inside the image.

        Raises:
            DamagedImage: It is a loop of links, or they lead too deep.
        """
        known = len(parts)
        while known and parts[:known] not in self._real:
            known -= 1
        path, left = self._real[parts[:known]] if known else (), _LinkBudget()
        for number in range(known, len(parts)):
            path = self._enter(path, parts[number], left)
            self._real[parts[: number + 1]] = path
        return path

    def _enter(self, path: Parts, name: str, left: _LinkBudget) -> Parts:
        """Return the real path of a name in a real directory."""
        pending = [name]
        while pending:
            part = pending.pop()
            if part == "..":  # at the root it stays there, as in a running system
                path = path[:-1]
                continue
            left.steps -= 1
            path = (*path, part)
            found = self.find(path)
            if found is not None and found.kind == "symlink":
                left.links -= 1
                path = () if found.target.startswith("/") else path[:-1]
                pending += [below for below in reversed(found.target.split("/")) if below not in ("", ".")]
            if left.links < 0 or left.steps < 0:
                raise DamagedImage(f"The links of {'/'.join(path)!r:.200} lead in a circle, or too deep.")
        return path

    def find(self, path: Parts) -> Found | None:
        """Return what a real path means in the whole stack, or None."""
        for depth, top in enumerate(self._tops):
            found, is_hidden = self._find_in(depth, top, path)
            if found is not None or is_hidden:
                return found
        return None

    @contextmanager
    def open_lower_parent(self, path: Parts) -> Iterator[int]:
        """Open the directory of what `find` found, in its layer."""
        found = self.find(path)
        assert found is not None
        with dirfd.open_directory(self._tops[found.depth], path[:-1]) as fd:
            yield fd

    def list_directory(self, path: Parts) -> dict[str, Found]:
        """Return what a real directory has in the whole stack, by name."""
        listed: dict[str, Found | None] = {}
        for depth, top in enumerate(self._tops):
            fd, is_hidden = _open_in(top, path)
            if fd is not None:
                with closing_fd(fd):
                    for name in os.listdir(fd):
                        if name not in listed:
                            listed[name] = _describe(fd, name, depth)
            if is_hidden:
                break
        return {name: found for name, found in listed.items() if found is not None}

    def _find_in(self, depth: int, top: int, path: Parts) -> tuple[Found | None, bool]:
        """Return what one layer has at a path, and whether it hides those below."""
        fd, is_hidden = _open_in(top, path[:-1])
        if fd is None:
            return None, is_hidden
        with closing_fd(fd):
            if not path:
                status = os.fstat(fd)
                return Found("directory", stat.S_IMODE(status.st_mode), status.st_mtime, depth, ""), False
            try:
                found = _describe(fd, path[-1], depth)
            except FileNotFoundError:
                return None, is_hidden
            return found, found is None


def _open_in(top: int, path: Parts) -> tuple[int | None, bool]:
    """Open a real directory of one layer, None if it has none.

    Also return whether the layer hides what is below.
    """
    fd, is_hidden = os.dup(top), False
    try:
        for part in path:
            status = os.stat(part, dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):  # a whiteout, for example
                os.close(fd)
                return None, True
            below = os.open(part, dirfd.DIRECTORY_OPEN_FLAGS, dir_fd=fd)
            os.close(fd)
            fd = below
            with suppress(OSError):
                is_hidden = is_hidden or os.getxattr(fd, OPAQUE_ATTRIBUTE) == b"y"
    except FileNotFoundError:
        os.close(fd)
        return None, is_hidden
    except BaseException:
        os.close(fd)
        raise
    return fd, is_hidden


def _describe(directory: int, name: str, depth: int) -> Found | None:
    """Return what one layer has in a directory, None if that is a whiteout."""
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if is_whiteout(status):
        return None
    target = os.readlink(name, dir_fd=directory) if stat.S_ISLNK(status.st_mode) else ""
    return Found(_kind(status), stat.S_IMODE(status.st_mode), status.st_mtime, depth, target)


def kind_in(directory: int, name: str) -> str | None:
    """Return what a directory has: as `Found.kind`, "whiteout", or None."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return "whiteout" if is_whiteout(status) else _kind(status)


def is_whiteout(status: os.stat_result) -> bool:
    """Return whether a file hides what lower layers have of its name."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _kind(status: os.stat_result) -> str:
    if stat.S_ISDIR(status.st_mode):
        return "directory"
    if stat.S_ISLNK(status.st_mode):
        return "symlink"
    return "file" if stat.S_ISREG(status.st_mode) else "other"
