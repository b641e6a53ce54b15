"""Whole directory trees in and out of a sandbox, each as one stream.

Each runs in a process that process 1 forks.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from agentbay.local.sandbox.inside.operation_context import OperationContext
from agentbay.local.sandbox.shared import dirfd
from agentbay.local.sandbox.shared.fd_io import closing_fd, write_all
from agentbay.local.sandbox.shared.file_protocol import ReceiveTree, ReceiveTreeReply
from agentbay.local.sandbox.shared.path_filter import PathFilter
from agentbay.local.sandbox.shared.tree_stream import (
    FileContent,
    TreeRecord,
    TreeStreamReader,
    TreeStreamWriter,
    TruncatedStream,
    check_relative_path,
)

_MAX_REPORTED_ERRORS = 10
_BLOCK_BYTES = 512  # the unit of st_blocks
_ENDLESS_BYTES = 1 << 63
_REPLACED_ERRNOS = (errno.EINVAL, errno.ELOOP, errno.ENOTDIR, errno.ENXIO)


def file_fingerprint(status: os.stat_result) -> list[int]:
    """Return facts that differ after any change of a file.

    No program can set the ctime.
    """
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def stream_tree(
    path: str, only: str, white_lists: Sequence[Mapping[str, Any]], known: dict[str, list[int]], output_fd: int
) -> None:
    """Stream the selected paths at `path`, or at `only` below it.

    Files whose fingerprint is in `known` come without content. Links come only if they stay below `path`; sockets,
    pipes and devices do not come. A directory that cannot be read is named, so that the caller does not take its
    content for deleted.
    """
    writer = TreeStreamWriter(output_fd)
    sender = _TreeSender(writer, path, PathFilter(white_lists, path), known)
    try:
        # The path that the caller names may be a link. Below it, none is followed.
        top = os.open(path, dirfd.DIRECTORY_OPEN_FLAGS & ~os.O_NOFOLLOW)
    except FileNotFoundError:
        top = -1
    except OSError as error:
        top = -1
        writer.write_record(kind="failed", why=f"{path}: {error.strerror}")
    if top >= 0:
        sender.send_selected(top, only)
    writer.end()


class _TreeSender:
    def __init__(self, writer: TreeStreamWriter, top: str, selection: PathFilter, known: dict[str, list[int]]) -> None:
        self._writer, self._top, self._selection, self._known = writer, top, selection, known

    def send_selected(self, top: int, only: str) -> None:
        if not only:
            self._send_entries(top, "", 0)
            return
        *above, name = only.split("/")
        try:
            with dirfd.open_directory(top, above) as fd:
                self._send_or_report(name, fd, only, len(above))
        except (FileNotFoundError, NotADirectoryError):
            return

    def _send_entries(self, fd: int, path: str, depth: int) -> None:
        for name in sorted(os.listdir(fd)):
            self._send_or_report(name, fd, f"{path}/{name}" if path else name, depth)

    def _send_or_report(self, name: str, above: int, path: str, depth: int) -> None:
        try:
            self._send(name, above, path, depth)
        except FileNotFoundError:  # removed meanwhile
            return
        except OSError as error:
            # An entry that one of another kind has replaced meanwhile (a race) counts as removed.
            if error.errno not in _REPLACED_ERRNOS:
                self._writer.write_record(path=path, kind="unreadable", why=error.strerror or str(error))

    def _send(self, name: str, above: int, path: str, depth: int) -> None:
        status = os.stat(name, dir_fd=above, follow_symlinks=False)
        chosen = path in self._selection
        if stat.S_ISDIR(status.st_mode):
            self._send_directory(name, above, path, depth, status if chosen else None)
        elif chosen and stat.S_ISLNK(status.st_mode):
            target = os.readlink(name, dir_fd=above)
            if stays_below(target, path, self._top):
                self._writer.write_record(path=path, kind="link", target=target)
        elif chosen and stat.S_ISREG(status.st_mode) and not name.startswith(dirfd.TEMPORARY_PREFIX):
            self._send_file(name, above, path)

    def _send_directory(self, name: str, above: int, path: str, depth: int, chosen: os.stat_result | None) -> None:
        # Each level takes a descriptor and stack frames, and code of the session chooses the depth.
        if depth >= dirfd.MAX_DEPTH:
            raise OSError(errno.ENAMETOOLONG, "The directories are nested too deeply")
        if chosen is None and not self._selection.may_contain_match(path):
            return
        with closing_fd(os.open(name, dirfd.DIRECTORY_OPEN_FLAGS, dir_fd=above)) as fd:
            if chosen is not None:
                self._writer.write_record(path=path, kind="dir", mode=stat.S_IMODE(chosen.st_mode))
            self._send_entries(fd, path, depth + 1)

    def _send_file(self, name: str, above: int, path: str) -> None:
        with closing_fd(os.open(name, dirfd.FILE_OPEN_FLAGS, dir_fd=above)) as fd:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):  # replaced since it was listed
                return
            now = file_fingerprint(status)
            if self._known.get(path) == now:
                self._writer.write_record(path=path, kind="same")
                return
            self._writer.write_record(
                path=path, kind="file", mode=stat.S_IMODE(status.st_mode), mtime=status.st_mtime_ns, facts=now
            )
            left = status.st_size  # a file that grows is sent again by the next upload; it might grow without end

            def read(size: int) -> bytes:
                nonlocal left
                data = os.read(fd, min(size, left))
                left -= len(data)
                return data

            def skip_hole() -> int:
                nonlocal left
                hole = min(_hole_at_offset(fd), left)
                os.lseek(fd, hole, os.SEEK_CUR)
                left -= hole
                return hole

            content = FileContent(read)
            is_sparse = status.st_blocks * _BLOCK_BYTES < status.st_size
            self._writer.write_content(content.read, skip_hole if is_sparse else None)
            # A file that was written meanwhile may be torn, and the receiver discards it.
            self._writer.write_unchanged_flag(file_fingerprint(os.fstat(fd)) == now and not content.error)
            if content.error:
                # Raised after the flag, so that the stream is well-formed when the error becomes its next record.
                raise OSError(errno.EIO, content.error)


def _hole_at_offset(fd: int) -> int:
    """Return the bytes of the hole at a descriptor's offset."""
    offset = os.lseek(fd, 0, os.SEEK_CUR)
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) - offset
    except OSError as error:
        return _ENDLESS_BYTES if error.errno == errno.ENXIO else 0  # no data follows
    finally:
        os.lseek(fd, offset, os.SEEK_SET)


def stays_below(target: str, path: str, top: str) -> bool:
    """Whether the text of a link at `path` below `top` names something below `top`."""
    if target.startswith("/"):
        absolute = os.path.normpath(target)
        return absolute == top or absolute.startswith(top.rstrip("/") + "/")
    relative = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return relative != ".." and not relative.startswith("../")


def extract_tree(request: ReceiveTree, context: OperationContext) -> ReceiveTreeReply:
    """Create the tree that a stream holds.

    Return each file's fingerprint, and errors.

    Each file appears whole under its name, by an atomic rename. Links in the way are replaced, never followed.
    """
    path = context.resolve(request.path)
    os.makedirs(path, exist_ok=True)
    # As in `stream_tree`, only the path that the caller names may be a link.
    top = os.open(path, dirfd.DIRECTORY_OPEN_FLAGS & ~os.O_NOFOLLOW)
    receiver = _TreeReceiver(top, request, context.room_in(top, request.room))
    reader = TreeStreamReader(context.input_fd)
    while (record := reader.read_record()) is not None:
        receiver.apply_record(record, reader)
    receiver.finish()
    return ReceiveTreeReply(facts=receiver.fingerprints, errors=receiver.errors[:_MAX_REPORTED_ERRORS])


def remove_incomplete(path: str, token: str) -> None:
    """Remove the file that `extract_tree` was writing when it was killed."""
    for directory, _, names in os.walk(path):
        if (name := dirfd.TEMPORARY_PREFIX + token) in names:
            os.unlink(os.path.join(directory, name))


class _TreeReceiver:
    def __init__(self, top: int, request: ReceiveTree, room: float) -> None:
        self._top, self._token, self._replace_anything = top, request.token, request.replace_anything
        self._room = room
        self._parent, self._parent_parts = os.dup(top), list[str]()
        self._modes: list[tuple[list[str], int]] = []
        self.fingerprints: dict[str, list[int]] = {}
        self.errors: list[dict[str, str]] = []

    def apply_record(self, record: TreeRecord, reader: TreeStreamReader) -> None:
        *above, name = check_relative_path(record["path"]).split("/")
        chunks = _FileChunks(reader) if record["kind"] == "file" else None
        try:
            fd = self._open_parent(above)
            if record["kind"] == "dir":
                self._modes.append(([*above, name], record["mode"]))
                with dirfd.open_directory(fd, [name], _make_directory):
                    pass
            elif chunks:
                self._check_replaceable(name, fd)
                self._write_file(name, fd, record, chunks)
            else:
                self._check_replaceable(name, fd)
                dirfd.remove(name, fd)
                os.symlink(record["target"], name, dir_fd=fd)
        except OSError as error:
            if isinstance(error, TruncatedStream):
                raise
            self.errors.append({"path": record["path"], "why": error.strerror or str(error)})
        # The content of a refused file must be read too, or it would be taken for the next record.
        if chunks:
            chunks.drain()

    def _open_parent(self, parts: list[str]) -> int:
        """Return the descriptor of a directory, which stays open for the next entries there."""
        if self._parent_parts != parts:
            with dirfd.open_directory(self._top, parts, _make_directory) as fd:
                os.dup2(fd, self._parent, inheritable=False)
            self._parent_parts = parts
        return self._parent

    def _check_replaceable(self, name: str, above: int) -> None:
        try:
            mode = 0 if self._replace_anything else os.stat(name, dir_fd=above, follow_symlinks=False).st_mode
        except FileNotFoundError:
            # There is nothing to replace.
            return
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "Is a directory")
        if mode and not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
            raise OSError(errno.EINVAL, "Not a regular file")

    def _write_file(self, name: str, above: int, record: TreeRecord, chunks: _FileChunks) -> None:
        temporary = dirfd.TEMPORARY_PREFIX + self._token
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=above)
        try:
            room = self._room
            while chunk := chunks.next():
                room -= len(chunk)
                if room < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                write_all(fd, chunk)
            if not chunks.is_whole:  # the sender reports why
                os.unlink(temporary, dir_fd=above)
                return
            os.fchmod(fd, record["mode"])
            os.utime(fd, ns=(record["mtime"], record["mtime"]))
            replaced = dirfd.remove_directory_in_the_way(name, above)
            self._room = room + (_freed_by_replacing(replaced) if replaced else 0)
            os.rename(temporary, name, src_dir_fd=above, dst_dir_fd=above)
            self.fingerprints[record["path"]] = file_fingerprint(os.fstat(fd))
        except OSError:
            os.unlink(temporary, dir_fd=above)
            raise
        finally:
            os.close(fd)

    def finish(self) -> None:
        """Set the modes of directories, last: a read-only one could not be filled."""
        # Children first: a parent that may no longer be searched would close the way to them.
        for parts, mode in reversed(self._modes):
            try:
                with dirfd.open_directory(self._top, parts) as fd:
                    os.fchmod(fd, mode)
            except OSError as error:
                self.errors.append({"path": "/".join(parts), "why": error.strerror or str(error)})


class _FileChunks:
    def __init__(self, reader: TreeStreamReader) -> None:
        self._reader = reader
        self._ended = False
        self.is_whole = False  # known at the end

    def next(self) -> bytes:
        chunk = self._reader.read_chunk()
        if not chunk:
            self._ended, self.is_whole = True, self._reader.read_unchanged_flag()
        return chunk

    def drain(self) -> None:
        while not self._ended:
            self.next()


def _make_directory(name: str, above: int) -> None:
    os.mkdir(name, 0o777, dir_fd=above)


def _freed_by_replacing(status: os.stat_result) -> int:
    """Return how many bytes a rename to a file frees."""
    return status.st_size if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 else 0
