"""Merging layers into one equivalent layer, without copying.

The files of the new layer are hard links to theirs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from agentbay.local.images.layer_writer import make_whiteout
from agentbay.local.images.merged_view import OPAQUE_ATTRIBUTE, is_whiteout
from agentbay.local.sandbox.shared import dirfd
from agentbay.local.sandbox.shared.fd_io import closing_fd

_MARKS = "user.overlay."  # of overlayfs; only one of them matters in a lower layer


def merge_layers(layers: Sequence[str], target: str) -> None:
    """Fill an empty directory with what layers mean together.

    Args:
        layers: The lowest first. Nobody changes them.

    Raises:
        OSError: A directory cannot be read, or the file system cannot link a file.
    """
    with _opened(target) as writer:
        for layer in layers:
            with _opened(layer) as reader:
                _add(reader, writer, 0)


def _add(source: int, target: int, depth: int) -> None:
    if depth > dirfd.MAX_DEPTH:
        raise OSError(0, "directories are nested too deep")
    if _is_opaque(source):
        for name in os.listdir(target):
            dirfd.remove(name, target)
    for name in os.listdir(source):
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            hides = _make_directory(name, target)
            with _opened(name, source) as reader, _opened(name, target) as writer:
                _add(reader, writer, depth + 1)
                if hides:
                    os.setxattr(writer, OPAQUE_ATTRIBUTE, b"y")
        else:
            dirfd.remove(name, target)
            if is_whiteout(status):  # it may hide something below all these layers
                make_whiteout(name, target)
            else:
                os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    _copy_facts(source, target)


def _make_directory(name: str, target: int) -> bool:
    """Make a directory, unless there is one, and return whether it hides another file."""
    try:
        os.mkdir(name, 0o700, dir_fd=target)
    except FileExistsError:
        if stat.S_ISDIR(os.stat(name, dir_fd=target, follow_symlinks=False).st_mode):
            return False
        dirfd.remove(name, target)
        os.mkdir(name, 0o700, dir_fd=target)
        return True
    return False


def _copy_facts(source: int, target: int) -> None:
    status = os.fstat(source)
    for name in os.listxattr(source):
        if name.startswith("user.") and (name == OPAQUE_ATTRIBUTE or not name.startswith(_MARKS)):
            os.setxattr(target, name, os.getxattr(source, name))
    if os.geteuid() == 0:
        os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _is_opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, OPAQUE_ATTRIBUTE) == b"y"
    except OSError:
        # File systems without extended attributes have no opaque directories.
        return False


@contextmanager
def _opened(path: str, above: int | None = None) -> Iterator[int]:
    with closing_fd(os.open(path, dirfd.DIRECTORY_OPEN_FLAGS, dir_fd=above)) as fd:
        yield fd
