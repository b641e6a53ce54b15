"""Whole trees in and out of a sandbox, each as one stream, by a process forked by the agent.

A stream is frames: 4 bytes of length and a JSON object; after one of a file its content in pieces, each with 4 bytes
of length, then an empty piece and a byte that says whether the file stood still meanwhile. The last frame says "end".
"""

from __future__ import annotations

import json
import os
import stat
import struct
from collections.abc import Callable, Sequence
from typing import Any

from agentbay.local.sandbox.shared import dirfd
from agentbay.local.sandbox.shared.path_filter import PathFilter

LENGTH_PREFIX = struct.Struct(">I")
CHUNK_BYTES = 1 << 18
_MOST_ERRORS = 10

TreeRecord = dict[str, Any]


class TruncatedStream(OSError):
    """A stream ended before its end."""


def file_fingerprint(status: os.stat_result) -> list[int]:
    """Return what would change with a file; the inode's time cannot be set by any program."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


class TreeStreamWriter:
    """Writes frames to a descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray()

    def write_record(self, **content: Any) -> None:
        """Write a frame."""
        body = json.dumps(content).encode()
        self._put(LENGTH_PREFIX.pack(len(body)) + body)

    def write_content(self, read: Callable[[int], bytes]) -> int:
        """Write the content of a file, and return its size; `stands` must follow."""
        size = 0
        while piece := read(CHUNK_BYTES):
            self._put(LENGTH_PREFIX.pack(len(piece)) + piece)
            size += len(piece)
        self._put(LENGTH_PREFIX.pack(0))
        return size

    def write_unchanged_flag(self, still: bool) -> None:
        """Say whether the file stood still while it was read."""
        self._put(b"\1" if still else b"\0")

    def end(self) -> None:
        """Write the last frame."""
        self.write_record(end=True)
        self.flush()

    def flush(self) -> None:
        """Write out what is held back."""
        view = memoryview(bytes(self._buffer))
        self._buffer.clear()
        while view:
            view = view[os.write(self._fd, view) :]

    def _put(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= CHUNK_BYTES:
            self.flush()


class TreeStreamReader:
    """Reads frames from a descriptor."""

    def __init__(self, fd: int) -> None:
        self._file = open(fd, "rb", buffering=CHUNK_BYTES, closefd=False)  # noqa: SIM115 - the descriptor is the caller's

    def read_record(self) -> TreeRecord | None:
        """Read the next frame, or None at the end."""
        frame: TreeRecord = json.loads(self._exactly(LENGTH_PREFIX.unpack(self._exactly(LENGTH_PREFIX.size))[0]))
        return None if "end" in frame else frame

    def read_chunk(self) -> bytes:
        """Read the next piece of a file, b"" at its end."""
        return self._exactly(LENGTH_PREFIX.unpack(self._exactly(LENGTH_PREFIX.size))[0])

    def read_unchanged_flag(self) -> bool:
        """Read whether it stood still."""
        return self._exactly(1) == b"\1"

    def _exactly(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) != length:
            raise TruncatedStream("the stream ended too early")
        return data


def stream_tree(
    path: str, only: str, white_lists: Sequence[TreeRecord], known: dict[str, list[int]], sink: int
) -> None:
    """Stream what is at `path`, or at `only` below it, and is chosen; files that are as `known` come without content.

    Links come only if they stay below `path`; sockets, pipes and devices do not come. A directory that cannot be read
    is named, so that nobody takes what is in it for deleted.
    """
    writer = TreeStreamWriter(sink)
    sender = _Sender(writer, path, PathFilter(white_lists, path), known)
    try:
        top = os.open(path, dirfd.DIRECTORY_OPEN_FLAGS & ~os.O_NOFOLLOW)
    except FileNotFoundError:
        top = -1
    if top >= 0:
        sender.start(top, only)
    writer.end()


class _Sender:
    def __init__(self, writer: TreeStreamWriter, top: str, selection: PathFilter, known: dict[str, list[int]]) -> None:
        self._writer, self._top, self._selection, self._known = writer, top, selection, known

    def start(self, top: int, only: str) -> None:
        if not only:
            self._directory(top, "", 0)
            return
        *above, name = only.split("/")
        try:
            with dirfd.open_directory(top, above) as fd:
                self._entry(name, fd, only, len(above))
        except (FileNotFoundError, NotADirectoryError):
            return

    def _directory(self, fd: int, path: str, depth: int) -> None:
        for name in sorted(os.listdir(fd)):
            self._entry(name, fd, f"{path}/{name}" if path else name, depth)

    def _entry(self, name: str, above: int, path: str, depth: int) -> None:
        try:
            self._send(name, above, path, depth)
        except FileNotFoundError:  # gone since
            return
        except OSError as error:
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
        if depth >= dirfd.MAX_DEPTH:
            raise OSError(36, "The directories are nested too deeply")
        if chosen is None and not self._selection.may_contain_match(path):
            return
        fd = os.open(name, dirfd.DIRECTORY_OPEN_FLAGS, dir_fd=above)
        try:
            if chosen is not None:
                self._writer.write_record(path=path, kind="dir", mode=stat.S_IMODE(chosen.st_mode))
            self._directory(fd, path, depth + 1)
        finally:
            os.close(fd)

    def _send_file(self, name: str, above: int, path: str) -> None:
        fd = os.open(name, dirfd.FILE_OPEN_FLAGS, dir_fd=above)
        try:
            status = os.fstat(fd)
            now = file_fingerprint(status)
            if self._known.get(path) == now:
                self._writer.write_record(path=path, kind="same")
                return
            self._writer.write_record(
                path=path, kind="file", mode=stat.S_IMODE(status.st_mode), mtime=status.st_mtime_ns, facts=now
            )
            self._writer.write_content(lambda size: os.read(fd, size))
            self._writer.write_unchanged_flag(file_fingerprint(os.fstat(fd)) == now)
        finally:
            os.close(fd)


def stays_below(target: str, path: str, top: str) -> bool:
    """Whether a link at `path` below `top` leads to something below `top`, as far as its text tells."""
    if target.startswith("/"):
        leads = os.path.normpath(target)
        return leads == top or leads.startswith(top.rstrip("/") + "/")
    leads = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return leads != ".." and not leads.startswith("../")


def extract_tree(path: str, source: int) -> dict[str, Any]:
    """Make what a stream holds at `path`; return the facts of each file, and what went wrong.

    Each file appears whole, under its name, at once. Links that are in the way are replaced, never followed.
    """
    os.makedirs(path, exist_ok=True)
    top = os.open(path, dirfd.DIRECTORY_OPEN_FLAGS & ~os.O_NOFOLLOW)
    reader, receiver = TreeStreamReader(source), _Receiver(top)
    while (frame := reader.read_record()) is not None:
        receiver.apply_record(frame, reader)
    receiver.finish()
    return {"facts": receiver.fingerprints, "errors": receiver.errors[:_MOST_ERRORS]}


class _Receiver:
    def __init__(self, top: int) -> None:
        self._top = top
        self._modes: list[tuple[list[str], int]] = []
        self.fingerprints: dict[str, list[int]] = {}
        self.errors: list[dict[str, str]] = []

    def apply_record(self, frame: TreeRecord, reader: TreeStreamReader) -> None:
        *above, name = frame["path"].split("/")
        self._reject_traversal(above, name)
        pieces = _FileChunks(reader) if frame["kind"] == "file" else None
        try:
            with dirfd.open_directory(self._top, above, _make) as fd:
                if frame["kind"] == "dir":
                    self._modes.append(([*above, name], frame["mode"]))
                    with dirfd.open_directory(fd, [name], _make):
                        pass
                elif pieces:
                    self.fingerprints[frame["path"]] = _write(name, fd, frame, pieces)
                else:
                    dirfd.remove(name, fd)
                    os.symlink(frame["target"], name, dir_fd=fd)
        except OSError as error:
            if isinstance(error, TruncatedStream):
                raise
            self.errors.append({"path": frame["path"], "why": error.strerror or str(error)})
        if pieces:
            pieces.drain()

    def _reject_traversal(self, above: list[str], name: str) -> None:
        if any(part in ("", ".", "..") for part in (*above, name)):
            raise ValueError("a path that leaves its directory")
        return

    def finish(self) -> None:
        """Give directories their modes: earlier, one that may not be written to could not be filled."""
        for parts, mode in reversed(self._modes):
            try:
                with dirfd.open_directory(self._top, parts) as fd:
                    os.fchmod(fd, mode)
            except OSError as error:
                self.errors.append({"path": "/".join(parts), "why": error.strerror or str(error)})


class _FileChunks:
    """The pieces of one file."""

    def __init__(self, reader: TreeStreamReader) -> None:
        self._reader = reader
        self._ended = False

    def next(self) -> bytes:
        piece = self._reader.read_chunk()
        self._ended = not piece
        return piece

    def drain(self) -> None:
        while not self._ended:
            self.next()
        self._reader.read_unchanged_flag()


def _make(name: str, above: int) -> None:
    os.mkdir(name, 0o777, dir_fd=above)


def _write(name: str, above: int, frame: TreeRecord, pieces: _FileChunks) -> list[int]:
    temporary = dirfd.TEMPORARY_PREFIX + os.urandom(8).hex()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=above)
    try:
        while piece := pieces.next():
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
        os.fchmod(fd, frame["mode"])
        os.utime(fd, ns=(frame["mtime"], frame["mtime"]))
        dirfd.remove_directory_in_the_way(name, above)
        os.rename(temporary, name, src_dir_fd=above, dst_dir_fd=above)
        return file_fingerprint(os.fstat(fd))
    except OSError:
        os.unlink(temporary, dir_fd=above)
        raise
    finally:
        os.close(fd)
