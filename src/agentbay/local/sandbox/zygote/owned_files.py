"""Files, links and directories of a new root, made for an owner."""

from __future__ import annotations

import os

from agentbay.local.sandbox.shared.fd_io import closing_fd

Ids = tuple[int, int]


def make_link(path: str, target: str, owner: Ids | None) -> None:
    """Make a symbolic link."""
    os.symlink(target, path)
    if owner:
        os.lchown(path, *owner)


def make_mount_point(target: str, is_directory: bool, owner: Ids | None) -> None:
    """Make `target` and its missing parents, which then belong to `owner`."""
    parent = os.path.dirname(target)
    if parent and not os.path.isdir(parent):
        make_mount_point(parent, True, owner)
    if os.path.exists(target):
        return
    if not is_directory:
        create_file(target, "", owner)
        return
    os.mkdir(target)
    if owner:
        # Code of a running sandbox may have put a link in its place since it was made (TOCTOU).
        os.chown(target, *owner, follow_symlinks=False)


def create_file(path: str, content: str, owner: Ids | None) -> None:
    """Create a file that does not exist."""
    # O_EXCL also refuses a dangling link, through which this process would create a file elsewhere.
    with closing_fd(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)) as fd:
        os.write(fd, content.encode())
        if owner:
            os.fchown(fd, *owner)
