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

from agentbay.local.sandbox import dirfd
from agentbay.local.sandbox.selection import Selection

LENGTH = struct.Struct(">I")
PIECE = 1 << 18
FACTS = 4  # what tells that a file has not been touched: size, times of its content and of its inode, inode
_MOST_ERRORS = 10

Frame = dict[str, Any]


class Truncated(OSError):
    """A stream ended before its end."""


def facts(status: os.stat_result) -> list[int]:
    """Return what would change with a file; the inode's time cannot be set by any program."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


class Writer:
    """Writes frames to a descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray()

    def frame(self, **content: Any) -> None:
        """Write a frame."""
        body = json.dumps(content).encode()
        self._put(LENGTH.pack(len(body)) + body)

    def content(self, read: Callable[[int], bytes]) -> int:
        """Write the content of a file, and return its size; `stands` must follow."""
        size = 0
        while piece := read(PIECE):
            self._put(LENGTH.pack(len(piece)) + piece)
            size += len(piece)
        self._put(LENGTH.pack(0))
        return size

    def stands(self, still: bool) -> None:
        """Say whether the file stood still while it was read."""
        self._put(b"\1" if still else b"\0")

    def end(self) -> None:
        """Write the last frame."""
        self.frame(end=True)
        self.flush()

    def flush(self) -> None:
        """Write out what is held back."""
        view = memoryview(bytes(self._buffer))
        self._buffer.clear()
        while view:
            view = view[os.write(self._fd, view) :]

    def _put(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= PIECE:
            self.flush()


class Reader:
    """Reads frames from a descriptor."""

    def __init__(self, fd: int) -> None:
        self._file = open(fd, "rb", buffering=PIECE, closefd=False)  # noqa: SIM115 - the descriptor is the caller's

    def frame(self) -> Frame | None:
        """Read the next frame, or None at the end."""
        frame: Frame = json.loads(self._exactly(LENGTH.unpack(self._exactly(LENGTH.size))[0]))
        return None if "end" in frame else frame

    def piece(self) -> bytes:
        """Read the next piece of a file, b"" at its end."""
        return self._exactly(LENGTH.unpack(self._exactly(LENGTH.size))[0])

    def stood_still(self) -> bool:
        """Read whether it stood still."""
        return self._exactly(1) == b"\1"

    def _exactly(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) != length:
            raise Truncated("the stream ended too early")
        return data


def send(path: str, only: str, white_lists: Sequence[Frame], known: dict[str, list[int]], sink: int) -> None:
    """Stream what is at `path`, or at `only` below it, and is chosen; files that are as `known` come without content.

    Links come only if they stay below `path`; sockets, pipes and devices do not come. A directory that cannot be read
    is named, so that nobody takes what is in it for deleted.
    """
    writer = Writer(sink)
    sender = _Sender(writer, path, Selection(white_lists, path), known)
    try:
        top = os.open(path, dirfd.DIRECTORY & ~os.O_NOFOLLOW)
    except FileNotFoundError:
        top = -1
    if top >= 0:
        sender.start(top, only)
    writer.end()


class _Sender:
    def __init__(self, writer: Writer, top: str, selection: Selection, known: dict[str, list[int]]) -> None:
        self._writer, self._top, self._selection, self._known = writer, top, selection, known

    def start(self, top: int, only: str) -> None:
        if not only:
            self._directory(top, "", 0)
            return
        *above, name = only.split("/")
        try:
            with dirfd.entered(top, above) as fd:
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
            self._writer.frame(path=path, kind="unreadable", why=error.strerror or str(error))

    def _send(self, name: str, above: int, path: str, depth: int) -> None:
        status = os.stat(name, dir_fd=above, follow_symlinks=False)
        chosen = path in self._selection
        if stat.S_ISDIR(status.st_mode):
            self._send_directory(name, above, path, depth, status if chosen else None)
        elif chosen and stat.S_ISLNK(status.st_mode):
            target = os.readlink(name, dir_fd=above)
            if stays_below(target, path, self._top):
                self._writer.frame(path=path, kind="link", target=target)
        elif chosen and stat.S_ISREG(status.st_mode) and not name.startswith(dirfd.TEMPORARY):
            self._send_file(name, above, path)

    def _send_directory(self, name: str, above: int, path: str, depth: int, chosen: os.stat_result | None) -> None:
        if depth >= dirfd.DEEPEST:
            raise OSError(36, "The directories are nested too deeply")
        if chosen is None and not self._selection.enters(path):
            return
        fd = os.open(name, dirfd.DIRECTORY, dir_fd=above)
        try:
            if chosen is not None:
                self._writer.frame(path=path, kind="dir", mode=stat.S_IMODE(chosen.st_mode))
            self._directory(fd, path, depth + 1)
        finally:
            os.close(fd)

    def _send_file(self, name: str, above: int, path: str) -> None:
        fd = os.open(name, dirfd.FILE, dir_fd=above)
        try:
            status = os.fstat(fd)
            now = facts(status)
            if self._known.get(path) == now:
                self._writer.frame(path=path, kind="same")
                return
            self._writer.frame(
                path=path, kind="file", mode=stat.S_IMODE(status.st_mode), mtime=status.st_mtime_ns, facts=now
            )
            self._writer.content(lambda size: os.read(fd, size))
            self._writer.stands(facts(os.fstat(fd)) == now)
        finally:
            os.close(fd)


def stays_below(target: str, path: str, top: str) -> bool:
    """Whether a link at `path` below `top` leads to something below `top`, as far as its text tells."""
    if target.startswith("/"):
        leads = os.path.normpath(target)
        return leads == top or leads.startswith(top.rstrip("/") + "/")
    leads = os.path.normpath(os.path.join(os.path.dirname(path), target))
    return leads != ".." and not leads.startswith("../")


def receive(path: str, source: int) -> dict[str, Any]:
    """Make what a stream holds at `path`; return the facts of each file, and what went wrong.

    Each file appears whole, under its name, at once. Links that are in the way are replaced, never followed.
    """
    os.makedirs(path, exist_ok=True)
    top = os.open(path, dirfd.DIRECTORY & ~os.O_NOFOLLOW)
    reader, receiver = Reader(source), _Receiver(top)
    while (frame := reader.frame()) is not None:
        receiver.take(frame, reader)
    receiver.finish()
    return {"facts": receiver.facts, "errors": receiver.errors[:_MOST_ERRORS]}


class _Receiver:
    def __init__(self, top: int) -> None:
        self._top = top
        self._modes: list[tuple[list[str], int]] = []
        self.facts: dict[str, list[int]] = {}
        self.errors: list[dict[str, str]] = []

    def take(self, frame: Frame, reader: Reader) -> None:
        *above, name = frame["path"].split("/")
        self._refuse_leaving(above, name)
        pieces = _Pieces(reader) if frame["kind"] == "file" else None
        try:
            with dirfd.entered(self._top, above, _make) as fd:
                if frame["kind"] == "dir":
                    self._modes.append(([*above, name], frame["mode"]))
                    with dirfd.entered(fd, [name], _make):
                        pass
                elif pieces:
                    self.facts[frame["path"]] = _write(name, fd, frame, pieces)
                else:
                    dirfd.remove(name, fd)
                    os.symlink(frame["target"], name, dir_fd=fd)
        except OSError as error:
            if isinstance(error, Truncated):
                raise
            self.errors.append({"path": frame["path"], "why": error.strerror or str(error)})
        if pieces:
            pieces.drain()

    def _refuse_leaving(self, above: list[str], name: str) -> None:
        if any(part in ("", ".", "..") for part in (*above, name)):
            raise ValueError("a path that leaves its directory")
        return

    def finish(self) -> None:
        """Give directories their modes: earlier, one that may not be written to could not be filled."""
        for parts, mode in reversed(self._modes):
            try:
                with dirfd.entered(self._top, parts) as fd:
                    os.fchmod(fd, mode)
            except OSError as error:
                self.errors.append({"path": "/".join(parts), "why": error.strerror or str(error)})


class _Pieces:
    """The pieces of one file."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._ended = False

    def next(self) -> bytes:
        piece = self._reader.piece()
        self._ended = not piece
        return piece

    def drain(self) -> None:
        while not self._ended:
            self.next()
        self._reader.stood_still()


def _make(name: str, above: int) -> None:
    os.mkdir(name, 0o777, dir_fd=above)


def _write(name: str, above: int, frame: Frame, pieces: _Pieces) -> list[int]:
    temporary = dirfd.TEMPORARY + os.urandom(8).hex()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=above)
    try:
        while piece := pieces.next():
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
        os.fchmod(fd, frame["mode"])
        os.utime(fd, ns=(frame["mtime"], frame["mtime"]))
        dirfd.make_way(name, above)
        os.rename(temporary, name, src_dir_fd=above, dst_dir_fd=above)
        return facts(os.fstat(fd))
    except OSError:
        os.unlink(temporary, dir_fd=above)
        raise
    finally:
        os.close(fd)
