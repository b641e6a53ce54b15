"""Moving files and directories, also from one file system of a sandbox to another."""

from __future__ import annotations

import errno
import os
import stat

from agentbay.local.sandbox.inside.operation_context import CHUNK_BYTES, OperationContext, mount_id, raise_os_error
from agentbay.local.sandbox.inside.removal import remove_directory, split_path
from agentbay.local.sandbox.shared import dirfd
from agentbay.local.sandbox.shared.fd_io import closing_fd, write_all
from agentbay.local.sandbox.shared.file_protocol import MoveAcross, MovePath, PathReply

_BLOCK_BYTES = 512  # the unit of st_blocks


def move_path(request: MovePath, context: OperationContext) -> PathReply:
    """Rename a file or a directory."""
    target = context.resolve(request.target)
    os.rename(context.resolve(request.source), target)
    return PathReply(target)


def move_across(request: MoveAcross, context: OperationContext) -> PathReply:
    """Move a path to another file system, all of it or nothing.

    The copy is made under a temporary name. Then the source is renamed to one, so that nothing is added to it any more,
    and the copy gets its name only if the source is still what was copied.
    """
    source, target = context.resolve(request.source), context.resolve(request.target)
    (source_directory, source_name), (target_directory, target_name) = split_path(source), split_path(target)
    os.umask(0)  # the copies get the modes of their originals
    with dirfd.open_path(source_directory) as above, dirfd.open_path(target_directory) as target_above:
        _refuse_into_itself(source, target_directory, target)
        tree = _SourceTree(source_name, above, source)
        if tree.allocated > context.room_in(target_above, request.room):
            raise_os_error(errno.ENOSPC, target)
        _check_replaceable(target_name, target_above, target, is_directory=tree.is_directory)
        copy, aside = _random_name(), _random_name()
        try:
            _Copier(tree, target_above, copy).run()
            os.rename(source_name, aside, src_dir_fd=above, dst_dir_fd=above)
            try:
                if tree.has_changed(aside):
                    raise_os_error(errno.EBUSY, source, "It was changed while it was moved; move it again")
                os.rename(copy, target_name, src_dir_fd=target_above, dst_dir_fd=target_above)
            except OSError:
                os.rename(aside, source_name, src_dir_fd=above, dst_dir_fd=above)
                raise
        except OSError as error:
            dirfd.remove(copy, target_above)
            raise _with_path(error, target) from error
        if tree.is_directory:
            remove_directory(aside, above, os.path.join(source_directory, aside), force=True)
        else:
            os.unlink(aside, dir_fd=above)
    return PathReply(target)


def _random_name() -> str:
    return dirfd.TEMPORARY_PREFIX + os.urandom(8).hex()


def _with_path(error: OSError, path: str) -> OSError:
    """Return the error with `path`, unless it names an absolute one."""
    names_path = isinstance(error.filename, str) and error.filename.startswith("/")
    return OSError(error.errno, error.strerror, error.filename if names_path else path)


def _refuse_into_itself(source: str, target_directory: str, target: str) -> None:
    """Refuse to move a directory into itself.

    The kernel does that only within one file system, and the copy would copy itself without end.
    """
    status, place = os.lstat(source), os.path.realpath(target_directory)
    while True:
        # Not by name, since one directory can be mounted at several places.
        if os.path.samestat(status, os.lstat(place)):
            raise_os_error(errno.EINVAL, target, "A directory cannot be moved into itself")
        if place == "/":
            return
        place = os.path.dirname(place)


def _check_replaceable(name: str, above: int, path: str, *, is_directory: bool) -> None:
    """Raise the error with which renaming would fail, before anything is copied."""
    try:
        status = os.stat(name, dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
        # There is nothing to replace.
        return
    if stat.S_ISDIR(status.st_mode) and not is_directory:
        raise_os_error(errno.EISDIR, path)
    if is_directory and not stat.S_ISDIR(status.st_mode):
        raise_os_error(errno.ENOTDIR, path)


class _SourceTree:
    """A file, or a directory with all below it, before the move.

    Attributes:
        is_directory: Whether it is a directory.
        allocated: The bytes that it takes of its file system, without the holes of sparse files.
    """

    def __init__(self, name: str, above: int, path: str) -> None:
        """Record the status of everything in the tree.

        Raises:
            OSError: Something cannot be read, or another directory is mounted in it.
        """
        self.name, self.above, self.path = name, above, path
        self.allocated = 0
        try:
            status = os.stat(name, dir_fd=above, follow_symlinks=False)
        except OSError as error:
            raise _with_path(error, path) from error
        self.is_directory = stat.S_ISDIR(status.st_mode)
        self._mount = b""
        self._facts = self._look(name)

    def has_changed(self, name: str) -> bool:
        """Return whether the tree, by another name, is not what it was."""
        return self._look(name) != self._facts

    def _look(self, name: str) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        self.allocated = 0
        self._add(name, self.above, "", found)
        return found

    def _add(self, name: str, above: int, path: str, found: dict[str, tuple[int, ...]]) -> None:
        status = os.stat(name, dir_fd=above, follow_symlinks=False)
        # Not the ctime, which the renaming changes.
        found[path] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ino)
        self.allocated += status.st_blocks * _BLOCK_BYTES
        if not stat.S_ISDIR(status.st_mode):
            return
        whole = self.path + path
        if path.count("/") >= dirfd.MAX_DEPTH:
            raise_os_error(errno.ENAMETOOLONG, whole, "The directories are nested too deeply")
        try:
            fd = os.open(name, dirfd.DIRECTORY_OPEN_FLAGS, dir_fd=above)
        except OSError as error:
            raise _with_path(error, whole) from error
        with closing_fd(fd):
            self._mount = self._mount or mount_id(fd)
            if mount_id(fd) != self._mount:
                raise_os_error(errno.EBUSY, whole, "Another directory is mounted there")
            for entry in os.listdir(fd):
                self._add(entry, fd, f"{path}/{entry}", found)


class _Copier:
    """Copies a tree with modes, times, links and holes."""

    def __init__(self, tree: _SourceTree, top: int, name: str) -> None:
        """Prepare a copy.

        Args:
            tree: What is copied.
            top: The descriptor of the directory in which the copy is made.
            name: The name of the copy there.
        """
        self._tree, self._top, self._name = tree, top, name
        self._copies: dict[int, str] = {}  # of files with several names: the first copy, by the inode

    def run(self) -> None:
        """Copy everything.

        Raises:
            OSError: It names what could not be copied.
        """
        self._copy(self._tree.name, self._tree.above, self._name, self._top, "")

    def _copy(self, name: str, above: int, copy: str, copy_above: int, path: str) -> None:
        try:
            status = os.stat(name, dir_fd=above, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                self._copy_directory(name, above, copy, copy_above, path)
            elif status.st_nlink > 1 and status.st_ino in self._copies:
                os.link(
                    self._copies[status.st_ino],
                    copy,
                    src_dir_fd=self._top,
                    dst_dir_fd=copy_above,
                    follow_symlinks=False,
                )
            else:
                self._copies[status.st_ino] = self._name + path
                _copy_file(name, above, copy, copy_above, status)
        except OSError as error:
            raise _with_path(error, self._tree.path + path) from error

    def _copy_directory(self, name: str, above: int, copy: str, copy_above: int, path: str) -> None:
        os.mkdir(copy, 0o700, dir_fd=copy_above)
        with dirfd.open_directory(above, [name]) as fd, dirfd.open_directory(copy_above, [copy]) as copy_fd:
            for entry in os.listdir(fd):
                self._copy(entry, fd, entry, copy_fd, f"{path}/{entry}")
            # Mode and times come last: a read-only directory could not be filled, and filling one changes its time.
            status = os.fstat(fd)
            os.fchmod(copy_fd, stat.S_IMODE(status.st_mode))
            os.utime(copy_fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def _copy_file(name: str, above: int, copy: str, copy_above: int, status: os.stat_result) -> None:
    """Copy what is no directory."""
    if stat.S_ISREG(status.st_mode):
        _copy_content(name, above, copy, copy_above, stat.S_IMODE(status.st_mode))
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=above), copy, dir_fd=copy_above)
    else:  # a FIFO or a socket; the kernel refuses devices
        os.mknod(copy, status.st_mode, status.st_rdev, dir_fd=copy_above)
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=copy_above, follow_symlinks=False)


def _copy_content(name: str, above: int, copy: str, copy_above: int, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with (
        closing_fd(os.open(name, dirfd.FILE_OPEN_FLAGS, dir_fd=above)) as source,
        closing_fd(os.open(copy, flags, 0o600, dir_fd=copy_above)) as target,
    ):
        _copy_data(source, target)
        os.fchmod(target, mode)


def _copy_data(source: int, target: int) -> None:
    """Copy the data of a file, and leave its holes."""
    end = 0
    while True:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # only a hole follows
        end = os.lseek(source, start, os.SEEK_HOLE)
        os.lseek(source, start, os.SEEK_SET)
        os.lseek(target, start, os.SEEK_SET)
        left = end - start
        while left and (chunk := os.read(source, min(left, CHUNK_BYTES))):
            write_all(target, chunk)
            left -= len(chunk)
    os.ftruncate(target, os.fstat(source).st_size)
