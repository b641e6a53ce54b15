"""File operations, each in a process forked by the agent: in the sandbox's view, with its user's rights and limits.

An answer is the payload, the result as JSON, and the length of that JSON in 8 bytes: what goes wrong halfway can still
be told.
"""

from __future__ import annotations

import difflib
import errno
import fnmatch
import json
import os
import stat
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from agentbay.local.sandbox.inside import tree_operations
from agentbay.local.sandbox.inside.inotify_watches import InotifyWatches
from agentbay.local.sandbox.shared import ipc
from agentbay.local.sandbox.shared.sandbox_config import CLIENT_HOME

Params = dict[str, Any]
FileReply = dict[str, Any]

REPLY_LENGTH = struct.Struct(">Q")
_CHUNK_BYTES = 1 << 20
_MAX_DIFF_BYTES = 2 << 20  # bytes of a file whose change is shown: comparing lines takes more than linear time
TEMPORARY = ".agentbay-"  # begins the names of files that are not whole yet
_OPEN_FLAGS = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # a FIFO must not block, nor a terminal take hold


class FileOperation:
    """One operation at work: where relative paths start, where the payload comes from and goes to."""

    def __init__(self, params: Params, home: str, source: int, sink: int) -> None:
        self.params, self.home, self.input_fd, self.output_fd = params, home, source, sink

    def path(self, name: str = "path") -> str:
        """Return a path parameter; relative ones, and `~`, start at home."""
        path = str(self.params[name])
        if not path:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return resolve_path(path, self.home)


def resolve_path(path: str, home: str) -> str:
    """Return `path` with what is relative, or begins with `~` or the home that clients know, put below `home`."""
    if path == CLIENT_HOME or path.startswith(CLIENT_HOME + "/"):
        return home + path.removeprefix(CLIENT_HOME)
    return os.path.join(home, path[2:] if path == "~" or path.startswith("~/") else path)


def run_operation(operation: str, params: Params, home: str, *, source: int, sink: int) -> NoReturn:
    """Do one operation, answer, and end the process."""
    try:
        try:
            result = FILE_OPERATIONS[operation](FileOperation(params, home, source, sink))
        except OSError as error:
            result = error_reply(error, str(params.get("path", "")))
        write_reply(sink, result)
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - the end of a forked child: whatever it is, the host must hear of it
        write_reply(sink, {"crash": repr(error)})
    finally:
        os._exit(1)


def error_reply(error: OSError, path: str) -> FileReply:
    """Return the answer that carries `error`."""
    name = error.filename if isinstance(error.filename, str) else path
    return {"failure": {"errno": error.errno or 0, "strerror": error.strerror or str(error), "path": name}}


def write_reply(sink: int, result: FileReply) -> None:
    """Write the result and its length, which end an answer."""
    body = json.dumps(result).encode()
    _write_all(sink, body + REPLY_LENGTH.pack(len(body)))


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


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


def read_file(operation: FileOperation) -> FileReply:
    """Send `length` bytes (0: all) from `offset`."""
    fd = _open_regular(operation.path())
    offset, length = int(operation.params.get("offset", 0)), int(operation.params.get("length", 0))
    os.lseek(fd, offset, os.SEEK_SET)
    sent = 0
    while not length or sent < length:
        chunk = os.read(fd, min(_CHUNK_BYTES, length - sent) if length else _CHUNK_BYTES)
        if not chunk:
            break
        _write_all(operation.output_fd, chunk)
        sent += len(chunk)
    return {"size": os.fstat(fd).st_size, "read": sent}


def write_file(operation: FileOperation) -> FileReply:
    """Write the payload: `mode` "overwrite" replaces the file at once, "append" adds; `sync` waits for the disk."""
    path = os.path.realpath(operation.path())
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        mode: int | None = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None:
        _require_regular(mode, path)
    sync = bool(operation.params.get("sync"))
    if operation.params.get("mode", "overwrite") == "append":
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _OPEN_FLAGS, 0o666)
        size = _copy(operation.input_fd, fd, sync=sync)
    else:
        size = _replace(path, operation.input_fd, None if mode is None else stat.S_IMODE(mode), sync=sync)
    return {"path": path, "written": size, "created": mode is None}


def _replace(path: str, source: int, mode: int | None, *, sync: bool) -> int:
    temporary = os.path.join(os.path.dirname(path), TEMPORARY + os.urandom(8).hex())
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        _raise_os_error(
            error.errno or errno.EIO, path, error.strerror or ""
        )  # the temporary name would tell nobody anything
    try:
        size = _copy(source, fd, sync=sync)
        if mode is not None:
            os.fchmod(fd, mode)
        os.rename(temporary, path)
    except OSError as error:
        os.unlink(temporary)
        _raise_os_error(error.errno or errno.EIO, path, error.strerror or "")
    return size


def _copy(source: int, target: int, *, sync: bool = False) -> int:
    size = 0
    while chunk := os.read(source, _CHUNK_BYTES):
        _write_all(target, chunk)
        size += len(chunk)
    if sync:
        os.fsync(target)
    return size


def edit_file(operation: FileOperation) -> FileReply:
    """Replace the first occurrence of each text, all or none; the payload is JSON pairs. Return the change."""
    path = os.path.realpath(operation.path())
    with open(_open_regular(path), "rb") as file:
        before, mode = file.read(), stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    with open(operation.input_fd, "rb", closefd=False) as payload:
        edits: list[list[str]] = json.loads(payload.read())
    after = before
    for old, new in edits:
        if old.encode() not in after:
            _raise_os_error(errno.EINVAL, path, f"The file does not hold the text to be replaced: {old!r:.200}")
        after = after.replace(old.encode(), new.encode(), 1)
    if not operation.params.get("dry_run") and after != before:
        _replace(path, ipc.make_memfd(after), mode, sync=False)
    return {"path": path, "diff": _diff(path, before, after)}


def _diff(path: str, before: bytes, after: bytes) -> str:
    if max(len(before), len(after)) > _MAX_DIFF_BYTES:
        return ""
    old, new = (text.decode("utf-8", "replace").splitlines(keepends=True) for text in (before, after))
    lines = difflib.unified_diff(old, new, path, path)
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)


def snapshot_tree(operation: FileOperation) -> FileReply:
    """Return what is below a directory, by path: whether it is a directory, and what changes when a file does.

    With `watch`, the source is an inotify descriptor, which tells from then on of changes; `watched` says if of all.
    """
    top = operation.path()
    if not _is_real_directory(os.path.realpath(top)):
        _raise_os_error(errno.ENOTDIR, top)
    watches = InotifyWatches(operation.input_fd if operation.params.get("watch") else None, top)
    found: dict[str, list[int]] = {}  # whether it is a directory, time, size, inode
    for directory, directories, names in os.walk(top):
        for name in (*directories, *names):
            if name.startswith(TEMPORARY):
                continue
            path = os.path.join(directory, name)
            try:
                status = os.lstat(path)
            except FileNotFoundError:  # it is gone since
                continue
            is_directory = stat.S_ISDIR(status.st_mode)
            facts = [0, 0, 0] if is_directory else [status.st_mtime_ns, status.st_size, status.st_ino]
            found[path] = [is_directory, *facts]
            if is_directory:
                watches.add(path)
        directories[:] = [name for name in directories if not name.startswith(TEMPORARY)]
    return {"path": top, "found": found, "now": time.time_ns(), "watched": watches.is_complete}


def list_directory(operation: FileOperation) -> FileReply:
    """Return what a directory holds, sorted by name."""
    with os.scandir(operation.path()) as entries:
        return {"entries": sorted(map(_describe_entry, entries), key=lambda entry: str(entry["name"]))}


def _describe_entry(entry: os.DirEntry[str]) -> FileReply:
    try:
        status = entry.stat()
    except OSError:  # a link that leads nowhere
        status = entry.stat(follow_symlinks=False)
    return {"name": entry.name, "is_symlink": entry.is_symlink(), **_describe(status)}


def _describe(status: os.stat_result) -> FileReply:
    return {
        "size": status.st_size,
        "is_directory": stat.S_ISDIR(status.st_mode),
        "is_file": stat.S_ISREG(status.st_mode),
        "permissions": f"{stat.S_IMODE(status.st_mode):03o}",
        "mtime": status.st_mtime,
        "atime": status.st_atime,
        "ctime": status.st_ctime,
    }


def stat_path(operation: FileOperation) -> FileReply:
    """Describe what `path` leads to."""
    path = operation.path()
    return {"path": path, "is_symlink": os.path.islink(path), **_describe(os.stat(path))}


def make_directory(operation: FileOperation) -> FileReply:
    """Make a directory and those above it; one that is there is left as it is."""
    path = operation.path()
    os.makedirs(path, exist_ok=True)
    return {"path": path}


def remove_path(operation: FileOperation) -> FileReply:
    """Remove a file or a link; a directory only if `recursive`."""
    path = operation.path()
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
    elif operation.params.get("recursive"):
        _remove_tree(path)
    else:
        _raise_os_error(errno.EISDIR, path)
    return {"path": path}


def _remove_tree(path: str) -> None:
    """Remove a directory and all below it, step by step down and up: neither depth nor length of paths is a limit."""
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
    """Remove what the current directory holds, up to a directory that must be emptied first; return its name."""
    with os.scandir() as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                return entry.name
            os.unlink(entry.name)
    return None


def move_path(operation: FileOperation) -> FileReply:
    """Rename `source` to `target`; across file systems (home, /tmp and each context are ones of their own) copy it."""
    source, target = operation.path("source"), operation.path("target")
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_across(source, target)
        _remove_tree(source) if _is_real_directory(source) else os.unlink(source)
    return {"path": target}


def _is_real_directory(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _copy_across(source: str, target: str) -> None:
    """Copy a tree to another file system with its modes and times; links stay links."""
    status = os.lstat(source)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
        return
    if stat.S_ISDIR(status.st_mode):
        if os.path.isdir(target):
            os.rmdir(target)  # as rename does: only an empty one is replaced
        os.mkdir(target)
        for name in os.listdir(source):
            _copy_across(os.path.join(source, name), os.path.join(target, name))
        os.chmod(target, stat.S_IMODE(status.st_mode))
    else:
        with open(_open_regular(source), "rb") as reader:
            _replace(target, reader.fileno(), stat.S_IMODE(status.st_mode), sync=False)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def search_tree(operation: FileOperation) -> FileReply:
    """Return the paths, sorted, whose name matches `pattern`; neither name nor directories above match `exclude`."""
    top = operation.path()
    if not _is_real_directory(os.path.realpath(top)):
        _raise_os_error(errno.ENOTDIR, top)
    wanted = _escape_brackets(operation.params["pattern"])
    excluded = [_escape_brackets(pattern) for pattern in operation.params.get("exclude", [])]
    return {"matches": sorted(_search(top, wanted, excluded))}


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


def send_tree(operation: FileOperation) -> FileReply:
    """Stream a tree to the sink; see `trees.send`. The payload says, as JSON, which files the caller has."""
    known = json.loads(b"".join(iter(lambda: os.read(operation.input_fd, _CHUNK_BYTES), b"")) or b"{}")
    params = operation.params
    tree_operations.stream_tree(operation.path(), params["only"], params["white_lists"], known, operation.output_fd)
    return {}


def receive_tree(operation: FileOperation) -> FileReply:
    """Make the tree that the payload holds; see `trees.receive`."""
    return tree_operations.extract_tree(operation.path(), operation.input_fd)


FILE_OPERATIONS: dict[str, Callable[[FileOperation], FileReply]] = {
    "send tree": send_tree,
    "receive tree": receive_tree,
    "read": read_file,
    "write": write_file,
    "list": list_directory,
    "stat": stat_path,
    "mkdir": make_directory,
    "remove": remove_path,
    "move": move_path,
    "search": search_tree,
    "edit": edit_file,
    "snapshot": snapshot_tree,
}
