"""File operations, each in a process that process 1 forks.

They have the sandbox's root, user and limits.

The request and reply classes are those of `file_protocol`.
"""

from __future__ import annotations

import difflib
import errno
import fnmatch
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from agentbay.local.sandbox.inside import tree_operations
from agentbay.local.sandbox.inside.change_lock import lock_for_change
from agentbay.local.sandbox.inside.inotify_watches import InotifyWatches
from agentbay.local.sandbox.inside.tree_operations import file_fingerprint
from agentbay.local.sandbox.shared import ipc
from agentbay.local.sandbox.shared.dirfd import TEMPORARY_PREFIX
from agentbay.local.sandbox.shared.fd_io import write_all
from agentbay.local.sandbox.shared.file_protocol import (
    REPLY_LENGTH,
    EditFile,
    EditReply,
    EntryStatus,
    FileReply,
    FileRequest,
    FileStatus,
    ListDirectory,
    ListReply,
    MakeDirectory,
    MovePath,
    PathReply,
    ReadFile,
    ReadReply,
    ReceiveTree,
    ReceiveTreeReply,
    RemovePath,
    SearchReply,
    SearchTree,
    SendTree,
    SendTreeReply,
    SnapshotReply,
    SnapshotTree,
    StatPath,
    StatReply,
    WriteFile,
    WriteReply,
)
from agentbay.local.sandbox.shared.sandbox_config import CLIENT_HOME

_CHUNK_BYTES = 1 << 20
_MAX_DIFF_BYTES = 2 << 20  # bytes of a file whose change is shown: comparing lines takes more than linear time
_OPEN_FLAGS = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # a FIFO must not block, nor a terminal become ours


class OperationContext:
    """Where relative paths start, where the input comes from and the payload goes."""

    def __init__(self, home: str, input_fd: int, output_fd: int) -> None:
        self._home, self.input_fd, self.output_fd = home, input_fd, output_fd

    def resolve(self, path: str) -> str:
        """Return `path` as an absolute one."""
        if not path:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return resolve_path(path, self._home)

    def read_input(self) -> bytes:
        """Read the whole input."""
        return b"".join(iter(lambda: os.read(self.input_fd, _CHUNK_BYTES), b""))


def resolve_path(path: str, home: str) -> str:
    """Return an absolute path.

    Relative ones, `~` and the home that clients know start at `home`.
    """
    if path == CLIENT_HOME or path.startswith(CLIENT_HOME + "/"):
        return home + path.removeprefix(CLIENT_HOME)
    return os.path.join(home, path[2:] if path == "~" or path.startswith("~/") else path)


def run_operation(operation: str, fields: dict[str, Any], context: OperationContext) -> NoReturn:
    """Do one operation, write its reply, and end the process."""
    try:
        try:
            request_class, handler = _HANDLERS[operation]
            reply = handler(request_class(**fields), context).to_json()
        except OSError as error:
            reply = error_reply(error, str(fields.get("path", "")))
        write_reply(context.output_fd, reply)
        # Not sys.exit: this is a copy of process 1, whose loop and exit handlers must not run here.
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - a forked child must end here, and the service must hear why
        write_reply(context.output_fd, {"crash": repr(error)})
    finally:
        os._exit(1)


def error_reply(error: OSError, path: str) -> dict[str, Any]:
    """Return the reply for an error.

    `path` stands in where the error names none.
    """
    name = error.filename if isinstance(error.filename, str) else path
    return {"failure": {"errno": error.errno or 0, "strerror": error.strerror or str(error), "path": name}}


def write_reply(output_fd: int, fields: dict[str, Any]) -> None:
    """Write the fields of a reply and their length, which end the output."""
    body = json.dumps(fields).encode()
    write_all(output_fd, body + REPLY_LENGTH.pack(len(body)))


def _raise_os_error(code: int, path: str, reason: str = "") -> NoReturn:
    raise OSError(code, reason or os.strerror(code), path)


def _require_regular(mode: int, path: str) -> None:
    if stat.S_ISDIR(mode):
        _raise_os_error(errno.EISDIR, path)
    if not stat.S_ISREG(mode):
        _raise_os_error(errno.EINVAL, path, "Not a regular file")


def _open_regular(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | _OPEN_FLAGS)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            _raise_os_error(errno.EINVAL, path, "Not a regular file")
        raise
    _require_regular(os.fstat(fd).st_mode, path)
    return fd


def _read_file(request: ReadFile, context: OperationContext) -> ReadReply:
    fd = _open_regular(context.resolve(request.path))
    os.lseek(fd, request.offset, os.SEEK_SET)
    sent = 0
    while not request.length or sent < request.length:
        chunk = os.read(fd, min(_CHUNK_BYTES, request.length - sent) if request.length else _CHUNK_BYTES)
        if not chunk:
            break
        write_all(context.output_fd, chunk)
        sent += len(chunk)
    return ReadReply(size=os.fstat(fd).st_size, read=sent)


def _make_parents(path: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    except FileExistsError as error:  # a file stands where a directory should, which "File exists" would not tell
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from error


def _write_file(request: WriteFile, context: OperationContext) -> WriteReply:
    # A rename replaces a link itself, so the file that the link leads to is named here.
    path = os.path.realpath(context.resolve(request.path))
    _make_parents(path)
    try:
        mode: int | None = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None:
        _require_regular(mode, path)
    if request.append:
        with lock_for_change(path):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _OPEN_FLAGS, 0o666)
            size = _copy(context.input_fd, fd, sync=request.sync)
    else:
        size = _replace(path, context.input_fd, None if mode is None else stat.S_IMODE(mode), sync=request.sync)
    return WriteReply(path=path, written=size, created=mode is None)


def _replace(path: str, source: int, mode: int | None, *, sync: bool) -> int:
    """Write a temporary file, rename it to `path`, and return its size."""
    # The lock is taken for the rename only: input may come slowly, and other changes would wait for it.
    with _temporary_copy(path, source, mode, sync=sync) as (temporary, size), lock_for_change(path):
        os.rename(temporary, path)
    return size


@contextmanager
def _temporary_copy(path: str, source: int, mode: int | None, *, sync: bool) -> Iterator[tuple[str, int]]:
    """Yield name and size of a temporary file beside `path`."""
    # In the same directory, because rename is atomic only within a file system.
    temporary = os.path.join(os.path.dirname(path), TEMPORARY_PREFIX + os.urandom(8).hex())
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        # the caller knows nothing of the temporary name
        _raise_os_error(error.errno or errno.EIO, path, error.strerror or "")
    try:
        size = _copy(source, fd, sync=sync)
        if mode is not None:
            os.fchmod(fd, mode)
        yield temporary, size
    except OSError as error:
        os.unlink(temporary)
        _raise_os_error(error.errno or errno.EIO, path, error.strerror or "")


def _copy(source: int, target: int, *, sync: bool = False) -> int:
    size = 0
    while chunk := os.read(source, _CHUNK_BYTES):
        write_all(target, chunk)
        size += len(chunk)
    if sync:
        os.fsync(target)
    return size


def _edit_file(request: EditFile, context: OperationContext) -> EditReply:
    path = os.path.realpath(context.resolve(request.path))
    edits: list[list[str]] = json.loads(context.read_input())
    with lock_for_change(path):
        before, after = _apply_edits(path, edits, dry_run=request.dry_run)
    return EditReply(path=path, diff=_diff(path, before, after))


def _apply_edits(path: str, edits: list[list[str]], *, dry_run: bool) -> tuple[bytes, bytes]:
    """Edit a file, and return its content before and after."""
    with open(_open_regular(path), "rb") as file:
        status = os.fstat(file.fileno())
        before = file.read()
    after = before
    for old, new in edits:
        if old.encode() not in after:
            _raise_os_error(errno.EINVAL, path, f"The file does not hold the text to be replaced: {old!r:.200}")
        after = after.replace(old.encode(), new.encode(), 1)
    if not dry_run and after != before:
        source = ipc.make_memfd(after)
        with _temporary_copy(path, source, stat.S_IMODE(status.st_mode), sync=False) as (temporary, _):
            # programs of the session do not know the lock: an edit must not undo what they have written
            if file_fingerprint(os.stat(path)) != file_fingerprint(status):
                _raise_os_error(errno.EBUSY, path, "The file was changed while it was edited; edit it again")
            os.rename(temporary, path)
    return before, after


def _diff(path: str, before: bytes, after: bytes) -> str:
    if max(len(before), len(after)) > _MAX_DIFF_BYTES:
        return ""
    old, new = (text.decode("utf-8", "replace").splitlines(keepends=True) for text in (before, after))
    lines = difflib.unified_diff(old, new, path, path)
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)


def _snapshot_tree(request: SnapshotTree, context: OperationContext) -> SnapshotReply:
    top = context.resolve(request.path)
    if not _is_real_directory(os.path.realpath(top)):
        _raise_os_error(errno.ENOTDIR, top)
    watches = InotifyWatches(context.input_fd if request.watch else None, top)
    found: dict[str, list[int]] = {}
    for directory, directories, names in os.walk(top):
        for name in (*directories, *names):
            if name.startswith(TEMPORARY_PREFIX):
                continue
            path = os.path.join(directory, name)
            try:
                status = os.lstat(path)
            except FileNotFoundError:  # removed meanwhile
                continue
            is_directory = stat.S_ISDIR(status.st_mode)
            # a directory changes with each entry, which is told by the entry itself
            version = [0, 0, 0] if is_directory else [status.st_mtime_ns, status.st_size, status.st_ino]
            found[path] = [is_directory, *version]
            if is_directory:
                # os.walk reads this directory later, so no change between the two goes unnoticed.
                watches.add(path)
        directories[:] = [name for name in directories if not name.startswith(TEMPORARY_PREFIX)]
    return SnapshotReply(path=top, found=found, now=time.time_ns(), watched=watches.is_complete)


def _list_directory(request: ListDirectory, context: OperationContext) -> ListReply:
    with os.scandir(context.resolve(request.path)) as entries:
        return ListReply(entries=sorted(map(_describe_entry, entries), key=lambda entry: entry["name"]))


def _describe_entry(entry: os.DirEntry[str]) -> EntryStatus:
    try:
        status = entry.stat()
    except OSError:  # a dangling link
        status = entry.stat(follow_symlinks=False)
    return EntryStatus(name=entry.name, is_symlink=entry.is_symlink(), **_describe(status))


def _describe(status: os.stat_result) -> FileStatus:
    return {
        "size": status.st_size,
        "is_directory": stat.S_ISDIR(status.st_mode),
        "is_file": stat.S_ISREG(status.st_mode),
        "permissions": f"{stat.S_IMODE(status.st_mode):03o}",
        "mtime": status.st_mtime,
        "atime": status.st_atime,
        "ctime": status.st_ctime,
    }


def _stat_path(request: StatPath, context: OperationContext) -> StatReply:
    path = context.resolve(request.path)
    return StatReply(path=path, is_symlink=os.path.islink(path), **_describe(os.stat(path)))


def _make_directory(request: MakeDirectory, context: OperationContext) -> PathReply:
    path = context.resolve(request.path)
    os.makedirs(path, exist_ok=True)
    return PathReply(path)


def _remove_path(request: RemovePath, context: OperationContext) -> PathReply:
    path = context.resolve(request.path)
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
    elif request.recursive:
        _remove_tree(path)
    else:
        _raise_os_error(errno.EISDIR, path)
    return PathReply(path)


def _remove_tree(path: str) -> None:
    """Remove a directory tree of any depth.

    The working directory goes down and up with it, so that no path is too long.
    """
    os.chdir(path)
    below: list[str] = []
    while True:
        child = _remove_entries()
        if child is not None:
            os.chdir(child)
            below.append(child)
        elif below:
            os.chdir("..")
            os.rmdir(below.pop())
        else:
            break
    os.chdir("/")
    os.rmdir(path)


def _remove_entries() -> str | None:
    """Empty the current directory, or return a subdirectory that must be emptied first."""
    with os.scandir() as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                return entry.name
            os.unlink(entry.name)
    return None


def _move_path(request: MovePath, context: OperationContext) -> PathReply:
    source, target = context.resolve(request.source), context.resolve(request.target)
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:  # home, /tmp and each context are file systems of their own
            raise
        _copy_across(source, target)
        _remove_tree(source) if _is_real_directory(source) else os.unlink(source)
    return PathReply(target)


def _is_real_directory(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _copy_across(source: str, target: str) -> None:
    """Copy a tree with its modes and times.

    Links stay links.
    """
    status = os.lstat(source)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
        return
    if stat.S_ISDIR(status.st_mode):
        if os.path.isdir(target):
            os.rmdir(target)  # as rename(2) does, this replaces an empty one only
        os.mkdir(target)
        for name in os.listdir(source):
            _copy_across(os.path.join(source, name), os.path.join(target, name))
        # Mode and times come last: a read-only directory could not be filled, and filling one changes its time.
        os.chmod(target, stat.S_IMODE(status.st_mode))
    else:
        with open(_open_regular(source), "rb") as reader:
            _replace(target, reader.fileno(), stat.S_IMODE(status.st_mode), sync=False)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _search_tree(request: SearchTree, context: OperationContext) -> SearchReply:
    top = context.resolve(request.path)
    if not _is_real_directory(os.path.realpath(top)):
        _raise_os_error(errno.ENOTDIR, top)
    wanted = _escape_brackets(request.pattern)
    excluded = [_escape_brackets(pattern) for pattern in request.exclude]
    return SearchReply(matches=sorted(_search(top, wanted, excluded)))


def _search(top: str, wanted: str, excluded: list[str]) -> Iterator[str]:
    def kept(directory: str, name: str) -> bool:
        below = os.path.relpath(os.path.join(directory, name), top)
        return not any(fnmatch.fnmatchcase(name, mask) or fnmatch.fnmatchcase(below, mask) for mask in excluded)

    for directory, directories, names in os.walk(top):
        directories[:] = [name for name in directories if kept(directory, name)]
        for name in (*directories, *names):
            if fnmatch.fnmatchcase(name, wanted) and kept(directory, name):
                yield os.path.join(directory, name)


def _escape_brackets(pattern: str) -> str:
    return pattern.replace("[", "[[]")  # only * and ? are special


def _send_tree(request: SendTree, context: OperationContext) -> SendTreeReply:
    known = json.loads(context.read_input() or b"{}")
    top = context.resolve(request.path)
    tree_operations.stream_tree(top, request.only, request.white_lists, known, context.output_fd)
    return SendTreeReply()


def _receive_tree(request: ReceiveTree, context: OperationContext) -> ReceiveTreeReply:
    return tree_operations.extract_tree(
        context.resolve(request.path), context.input_fd, replace_directories=request.replace_directories
    )


_Handler = Callable[[Any, OperationContext], FileReply]
_HANDLERS_BY_CLASS: dict[type[FileRequest[Any]], _Handler] = {
    ReadFile: _read_file,
    WriteFile: _write_file,
    EditFile: _edit_file,
    ListDirectory: _list_directory,
    StatPath: _stat_path,
    MakeDirectory: _make_directory,
    RemovePath: _remove_path,
    MovePath: _move_path,
    SearchTree: _search_tree,
    SnapshotTree: _snapshot_tree,
    SendTree: _send_tree,
    ReceiveTree: _receive_tree,
}
_HANDLERS = {request.__name__: (request, handler) for request, handler in _HANDLERS_BY_CLASS.items()}
