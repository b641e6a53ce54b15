"""Removing files and directories, as `rm` does."""

from __future__ import annotations

import errno
import os
import stat

from agentbay.local.sandbox.inside.operation_context import OperationContext, raise_os_error
from agentbay.local.sandbox.shared import dirfd
from agentbay.local.sandbox.shared.file_protocol import PathReply, RemovePath

_REPLACED_ERRNOS = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_MAX_ATTEMPTS = 1000  # against a program that keeps adding entries to a directory


def remove_path(request: RemovePath, context: OperationContext) -> PathReply:
    """Remove a file or a link, or a directory with its content."""
    path = context.resolve(request.path)
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
    elif request.recursive:
        above, name = split_path(path)
        with dirfd.open_path(above) as fd:
            if not _remove_if_empty(name, fd, path):
                remove_directory(name, fd, path)
    else:
        raise_os_error(errno.EISDIR, path)
    return PathReply(path)


def _remove_if_empty(name: str, above: int, path: str) -> bool:
    """Remove a directory that is empty, and return whether it was.

    Raises:
        OSError: It cannot be removed, with or without content: something is mounted there, or the directory above is
            read-only.
    """
    try:
        os.rmdir(name, dir_fd=above)
    except OSError as error:  # the kernel looks at the content last
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise OSError(error.errno, error.strerror, path) from error
    return True


def split_path(path: str) -> tuple[str, str]:
    """Return the directory above an entry, and the entry's name in it.

    Raises:
        OSError: The path ends with no name, such as one that ends with "..".
    """
    above, name = os.path.split(path.rstrip("/"))
    if name in ("", ".", ".."):
        raise_os_error(errno.EINVAL, path, "The path must end with the name of a file or directory")
    return above, name


def remove_directory(name: str, above: int, path: str, *, force: bool = False) -> None:
    """Remove a directory with all that is in it.

    The way down is by descriptors and follows no link. What something else removes meanwhile counts as removed.

    Args:
        name: Its name in the directory of the descriptor `above`.
        path: What errors call it.
        force: Also empty directories that their owner has made read-only.

    Raises:
        OSError: Something cannot be removed. It names the directory in which that is.
    """
    removal = _Removal(name, above, force=force)
    try:
        removal.run()
    except OSError as error:
        place = os.path.join(path, *removal.names[1:])
        raise OSError(error.errno, error.strerror, place) from error
    finally:
        removal.close()


class _Removal:
    """The removal of one directory, which `names` leads into.

    Attributes:
        names: The directory and those in it down to the one that is being emptied.
    """

    def __init__(self, name: str, above: int, *, force: bool) -> None:
        self.names = [name]
        self._descriptors = [above]  # that of the directory which holds the first name, the second, ...
        self._force = force
        self._attempts_left = _MAX_ATTEMPTS

    def run(self) -> None:
        while self.names:
            if len(self._descriptors) == len(self.names) and not self._enter():
                self.names.pop()
            elif (child := self._remove_files()) is None:
                self._leave()
            elif len(self.names) < dirfd.MAX_DEPTH:
                self.names.append(child)
            else:
                self._move_up(child)

    def close(self) -> None:
        """Close all descriptors but the caller's."""
        for fd in self._descriptors[1:]:
            os.close(fd)

    def _enter(self) -> bool:
        """Open the last directory, and return whether it is still one."""
        try:
            fd = os.open(self.names[-1], dirfd.DIRECTORY_OPEN_FLAGS, dir_fd=self._descriptors[-1])
        except OSError as error:
            if error.errno == errno.ENOENT or (len(self.names) > 1 and error.errno in _REPLACED_ERRNOS):
                return False
            raise
        self._descriptors.append(fd)
        if self._force:
            os.fchmod(fd, 0o700)
        return True

    def _remove_files(self) -> str | None:
        """Remove the files of the last directory up to a subdirectory, and return that."""
        fd = self._descriptors[-1]
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    return entry.name
                try:
                    os.unlink(entry.name, dir_fd=fd)
                except FileNotFoundError:
                    # Another program of the sandbox was faster.
                    continue
                except IsADirectoryError:  # it has taken the place of a file
                    return entry.name
        return None

    def _leave(self) -> None:
        """Remove the last directory, which is empty unless something was added to it."""
        try:
            os.rmdir(self.names[-1], dir_fd=self._descriptors[-2])
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and self._attempts_left:
                self._attempts_left -= 1
                return
            if error.errno not in _REPLACED_ERRNOS:
                raise
        os.close(self._descriptors.pop())
        self.names.pop()

    def _move_up(self, child: str) -> None:
        """Move a directory that lies too deep to the top.

        Each level takes a descriptor, and programs of the session choose the depth.
        """
        aside = dirfd.TEMPORARY_PREFIX + os.urandom(8).hex()
        try:
            os.rename(child, aside, src_dir_fd=self._descriptors[-1], dst_dir_fd=self._descriptors[1])
        except FileNotFoundError:
            pass
