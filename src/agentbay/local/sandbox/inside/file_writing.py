"""The file operations that change the content of a file: writing and editing."""

from __future__ import annotations

import difflib
import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from agentbay.local.sandbox.inside.change_lock import lock_for_change
from agentbay.local.sandbox.inside.operation_context import (
    CHUNK_BYTES,
    OPEN_FLAGS,
    OperationContext,
    open_regular,
    raise_os_error,
    require_regular,
)
from agentbay.local.sandbox.inside.tree_operations import file_fingerprint
from agentbay.local.sandbox.shared import dirfd, ipc
from agentbay.local.sandbox.shared.dirfd import TEMPORARY_PREFIX
from agentbay.local.sandbox.shared.fd_io import write_all
from agentbay.local.sandbox.shared.file_protocol import (
    EditFile,
    EditReply,
    PathReply,
    RemoveUnfinished,
    WriteFile,
    WriteReply,
)

_MAX_DIFF_BYTES = 2 << 20  # bytes of a file whose change is shown: comparing lines takes more than linear time


def _make_parents(path: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    except FileExistsError as error:  # a file has the place of a directory, which "File exists" would not say
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from error


def write_file(request: WriteFile, context: OperationContext) -> WriteReply:
    """Replace a file, or append to it, and make the directories above it."""
    if request.path.endswith("/"):  # a directory, whether or not there is one
        raise_os_error(errno.EISDIR, request.path)
    # A rename replaces a link itself, so the file that the link leads to is named here.
    path = os.path.realpath(context.resolve(request.path))
    _make_parents(path)
    try:
        status: os.stat_result | None = os.stat(path)
    except FileNotFoundError:
        status = None
    if status is not None:
        require_regular(status.st_mode, path)
        _require_writable(path)
    if not request.append or (status is None and request.size is not None):
        size = _replace(path, context.input_fd, status, request)
    elif request.size is None:
        size = _append(path, context.input_fd, sync=request.sync)
    else:
        # Input that may come slowly, or break off, is kept beside the file until it is whole.
        with _temporary_copy(path, context.input_fd, None, request) as (temporary, _):
            size = _append(path, os.open(temporary, os.O_RDONLY | os.O_CLOEXEC), sync=request.sync)
            os.unlink(temporary)
    return WriteReply(path=path, written=size, created=status is None)


def _require_writable(path: str) -> None:
    """Raise OSError for a file that may not be written.

    A rename would replace it all the same.
    """
    if not os.access(path, os.W_OK, effective_ids=True):
        # Opening decides, since old kernels do not look at the uid for files; it alone would look like a change.
        os.close(os.open(path, os.O_WRONLY | OPEN_FLAGS))


def remove_unfinished(request: RemoveUnfinished, context: OperationContext) -> PathReply:
    """Remove the file that `write_file` was writing when it was killed."""
    path = os.path.realpath(context.resolve(request.path))
    with suppress(FileNotFoundError):
        os.unlink(_temporary_path(path, request.token))
    return PathReply(path)


def _append(path: str, source: int, *, sync: bool) -> int:
    with lock_for_change(path):
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | OPEN_FLAGS, 0o666)
        return _copy(source, target, sync=sync)


def _replace(path: str, source: int, status: os.stat_result | None, request: WriteFile) -> int:
    """Write a temporary file, put it in place, and return its size."""
    # The lock is taken for the replacement only: input may come slowly, and other changes would wait for it.
    mode = None if status is None else stat.S_IMODE(status.st_mode)
    with _temporary_copy(path, source, mode, request) as (temporary, written), lock_for_change(path):
        _put_in_place(temporary, path, status)
    return written


def _put_in_place(temporary: str, path: str, status: os.stat_result | None) -> None:
    """Rename a file to a path.

    A file with further hard links is overwritten instead, so that they still lead to it.
    """
    if status is None or status.st_nlink == 1:
        os.rename(temporary, path)
        return
    source = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
    target = os.open(path, os.O_WRONLY | OPEN_FLAGS)
    try:
        os.ftruncate(target, _copy(source, target))
    finally:
        os.close(source)
        os.close(target)
    os.unlink(temporary)


def _temporary_path(path: str, token: str) -> str:
    # In the same directory, because rename is atomic only within a file system.
    return os.path.join(os.path.dirname(path), TEMPORARY_PREFIX + token)


@contextmanager
def _temporary_copy(path: str, source: int, mode: int | None, request: WriteFile) -> Iterator[tuple[str, int]]:
    """Yield name and size of a temporary file beside `path`."""
    temporary = _temporary_path(path, request.token or os.urandom(8).hex())
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        # the caller knows nothing of the temporary name
        raise_os_error(error.errno or errno.EIO, path, error.strerror or "")
    try:
        written = _copy(source, fd, sync=request.sync)
        if request.size is not None and written != request.size:
            raise_os_error(errno.EPIPE, path, "The content broke off")
        if mode is not None:
            os.fchmod(fd, mode)
        yield temporary, written
    except OSError as error:
        os.unlink(temporary)
        raise_os_error(error.errno or errno.EIO, path, error.strerror or "")


def _copy(source: int, target: int, *, sync: bool = False) -> int:
    size = 0
    while chunk := os.read(source, CHUNK_BYTES):
        write_all(target, chunk)
        size += len(chunk)
    if sync:
        os.fsync(target)
    return size


def edit_file(request: EditFile, context: OperationContext) -> EditReply:
    """Replace texts in a file, all of them or none."""
    path = os.path.realpath(context.resolve(request.path))
    edits: list[list[str]] = json.loads(context.read_input())
    with dirfd.open_path(os.path.dirname(path)) as directory:
        room = context.room_in(directory, request.room)
    with lock_for_change(path):
        before, after = _apply_edits(path, edits, dry_run=request.dry_run, room=room)
    return EditReply(path=path, diff=_diff(path, before, after))


def _apply_edits(path: str, edits: list[list[str]], *, dry_run: bool, room: float) -> tuple[bytes, bytes]:
    """Edit a file, and return its content before and after."""
    with open(open_regular(path), "rb") as file:
        status = os.fstat(file.fileno())
        _require_writable(path)
        before = file.read()
    after = before
    for old, new in edits:
        if old.encode() not in after:
            raise_os_error(errno.EINVAL, path, f"The file does not hold the text to be replaced: {old!r:.200}")
        after = after.replace(old.encode(), new.encode(), 1)
    if not dry_run and after != before:
        if len(after) > room:
            raise_os_error(errno.ENOSPC, path)
        source = ipc.make_memfd(after)
        with _temporary_copy(path, source, stat.S_IMODE(status.st_mode), WriteFile(path)) as (temporary, _):
            # programs of the session do not know the lock: an edit must not undo what they have written
            if file_fingerprint(os.stat(path)) != file_fingerprint(status):
                raise_os_error(errno.EBUSY, path, "The file was changed while it was edited; edit it again")
            _put_in_place(temporary, path, status)
    return before, after


def _diff(path: str, before: bytes, after: bytes) -> str:
    if max(len(before), len(after)) > _MAX_DIFF_BYTES:
        return ""
    old, new = (text.decode("utf-8", "replace").splitlines(keepends=True) for text in (before, after))
    lines = difflib.unified_diff(old, new, path, path)
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)
