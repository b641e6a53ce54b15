"""File operations, each in a process that process 1 forks.

They have the sandbox's root, user and limits.

The request and reply classes are those of `file_protocol`.
"""

from __future__ import annotations

import fnmatch
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from agentbay.local.sandbox.inside import file_writing, moving, removal, tree_operations
from agentbay.local.sandbox.inside.inotify_watches import InotifyWatches
from agentbay.local.sandbox.inside.operation_context import CHUNK_BYTES, OperationContext, open_regular
from agentbay.local.sandbox.shared import file_protocol as protocol
from agentbay.local.sandbox.shared.dirfd import TEMPORARY_PREFIX
from agentbay.local.sandbox.shared.fd_io import write_all

# A walk over a tree has four frames for each of up to `dirfd.MAX_DEPTH` levels.
_RECURSION_LIMIT = 5000
_SEND_BYTES = 1 << 30  # in one system call


def run_operation(operation: str, fields: dict[str, Any], context: OperationContext) -> NoReturn:
    """Do one operation, write its reply, and end the process."""
    sys.setrecursionlimit(_RECURSION_LIMIT)
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

    `path` is used if the error names none.
    """
    name = error.filename if isinstance(error.filename, str) else path
    return {"failure": {"errno": error.errno or 0, "strerror": error.strerror or str(error), "path": name}}


def write_reply(output_fd: int, fields: dict[str, Any]) -> None:
    """Write the fields of a reply and their length, which end the output."""
    body = json.dumps(fields).encode()
    write_all(output_fd, body + protocol.REPLY_LENGTH.pack(len(body)))


def _read_file(request: protocol.ReadFile, context: OperationContext) -> protocol.ReadReply:
    fd = open_regular(context.resolve(request.path))
    os.lseek(fd, request.offset, os.SEEK_SET)
    sent = 0
    while not request.length or sent < request.length:
        chunk = os.read(fd, min(CHUNK_BYTES, request.length - sent) if request.length else CHUNK_BYTES)
        if not chunk:
            break
        write_all(context.output_fd, chunk)
        sent += len(chunk)
    return protocol.ReadReply(size=os.fstat(fd).st_size, read=sent)


def _send_file(request: protocol.SendFile, context: OperationContext) -> protocol.ReadReply:
    fd = open_regular(context.resolve(request.path))
    size = os.fstat(fd).st_size
    left, offset = max(min(request.length, size - request.offset), 0), request.offset
    reply = protocol.ReadReply(size=size, read=left)
    write_all(context.output_fd, protocol.CONTENT_HEAD.pack(protocol.CONTENT_MARK, left))
    while left:
        sent = os.sendfile(context.output_fd, fd, offset, min(left, _SEND_BYTES))
        if not sent:
            os._exit(1)  # a reply would be taken for the bytes that are missing
        left, offset = left - sent, offset + sent
    return reply


def _snapshot_tree(request: protocol.SnapshotTree, context: OperationContext) -> protocol.SnapshotReply:
    top = context.resolve_directory(request.path)
    watches = InotifyWatches(context.input_fd if request.watch else None, top)
    found: dict[str, list[int]] = {}
    for directory, directories, names in os.walk(top):
        for name in (*directories, *names):
            if name.startswith(TEMPORARY_PREFIX):
                continue
            path = os.path.join(directory, name)
            try:
                status = os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):  # removed or replaced meanwhile, or a directory above it
                continue
            is_directory = stat.S_ISDIR(status.st_mode)
            # an entry that is added or removed changes its directory too, but is reported itself
            version = [0, 0, 0] if is_directory else [status.st_mtime_ns, status.st_size, status.st_ino]
            found[path] = [is_directory, *version]
            if is_directory:
                # os.walk reads this directory later, so no change between the two goes unnoticed.
                watches.add(path)
        directories[:] = [name for name in directories if not name.startswith(TEMPORARY_PREFIX)]
    return protocol.SnapshotReply(path=top, found=found, now=time.time_ns(), watched=watches.is_complete)


def _list_directory(request: protocol.ListDirectory, context: OperationContext) -> protocol.ListReply:
    with os.scandir(context.resolve(request.path)) as entries:
        described = filter(None, map(_describe_entry, entries))
        return protocol.ListReply(entries=sorted(described, key=lambda entry: entry["name"]))


def _describe_entry(entry: os.DirEntry[str]) -> protocol.EntryStatus | None:
    try:
        try:
            status = entry.stat()
        except OSError:  # a dangling link
            status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # removed meanwhile
        return None
    return protocol.EntryStatus(name=entry.name, is_symlink=entry.is_symlink(), **_describe(status))


def _describe(status: os.stat_result) -> protocol.FileStatus:
    return {
        "size": status.st_size,
        "is_directory": stat.S_ISDIR(status.st_mode),
        "is_file": stat.S_ISREG(status.st_mode),
        "permissions": f"{stat.S_IMODE(status.st_mode):03o}",
        "mtime": status.st_mtime,
        "atime": status.st_atime,
        "ctime": status.st_ctime,
    }


def _stat_path(request: protocol.StatPath, context: OperationContext) -> protocol.StatReply:
    path = context.resolve(request.path)
    return protocol.StatReply(path=path, is_symlink=os.path.islink(path), **_describe(os.stat(path)))


def _make_directory(request: protocol.MakeDirectory, context: OperationContext) -> protocol.PathReply:
    path = context.resolve(request.path)
    os.makedirs(path, exist_ok=True)
    return protocol.PathReply(path)


def _search_tree(request: protocol.SearchTree, context: OperationContext) -> protocol.SearchReply:
    top = context.resolve_directory(request.path)
    pattern = _escape_brackets(request.pattern)
    excluded = [_escape_brackets(pattern) for pattern in request.exclude]
    return protocol.SearchReply(matches=sorted(_search(top, pattern, excluded)))


def _search(top: str, pattern: str, excluded: list[str]) -> Iterator[str]:
    def is_included(directory: str, name: str) -> bool:
        below = os.path.relpath(os.path.join(directory, name), top)
        return not any(fnmatch.fnmatchcase(name, mask) or fnmatch.fnmatchcase(below, mask) for mask in excluded)

    for directory, directories, names in os.walk(top):
        directories[:] = [name for name in directories if is_included(directory, name)]
        for name in (*directories, *names):
            if fnmatch.fnmatchcase(name, pattern) and is_included(directory, name):
                yield os.path.join(directory, name)


def _escape_brackets(pattern: str) -> str:
    return pattern.replace("[", "[[]")  # only * and ? are special


def _send_tree(request: protocol.SendTree, context: OperationContext) -> protocol.SendTreeReply:
    known = json.loads(context.read_input() or b"{}")
    top = context.resolve(request.path)
    tree_operations.stream_tree(top, request.only, request.white_lists, known, context.output_fd)
    return protocol.SendTreeReply()


def _receive_tree(request: protocol.ReceiveTree, context: OperationContext) -> protocol.ReceiveTreeReply:
    return tree_operations.extract_tree(request, context)


def _remove_incomplete(request: protocol.RemoveIncomplete, context: OperationContext) -> protocol.PathReply:
    path = context.resolve(request.path)
    tree_operations.remove_incomplete(path, request.token)
    return protocol.PathReply(path)


_Handler = Callable[[Any, OperationContext], protocol.FileReply]
_HANDLERS_BY_CLASS: dict[type[protocol.FileRequest[Any]], _Handler] = {
    protocol.ReadFile: _read_file,
    protocol.SendFile: _send_file,
    protocol.WriteFile: file_writing.write_file,
    protocol.RemoveUnfinished: file_writing.remove_unfinished,
    protocol.EditFile: file_writing.edit_file,
    protocol.ListDirectory: _list_directory,
    protocol.StatPath: _stat_path,
    protocol.MakeDirectory: _make_directory,
    protocol.RemovePath: removal.remove_path,
    protocol.MovePath: moving.move_path,
    protocol.MoveAcross: moving.move_across,
    protocol.SearchTree: _search_tree,
    protocol.SnapshotTree: _snapshot_tree,
    protocol.SendTree: _send_tree,
    protocol.ReceiveTree: _receive_tree,
    protocol.RemoveIncomplete: _remove_incomplete,
}
_HANDLERS = {request.__name__: (request, handler) for request, handler in _HANDLERS_BY_CLASS.items()}
