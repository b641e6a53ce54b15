"""Files in a session."""

from __future__ import annotations

import builtins
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from .._arguments import checked_arguments
from .._transport.deadline import time_limit
from .._transport.file_errors import file_text_or_raise
from .._transport.files import read_changes, read_directory_listing, read_edit_diff, read_info, read_matches
from .._wire import tools as wire
from .._wire.schema import Tool
from ..errors import FileError, InvalidArgumentError, PathNotDirectoryError, PathNotFoundError
from ..models.base import BoolResult
from ..models.filesystem import (
    DirectoryListResult,
    EditResult,
    FileChangeEvent,
    FileChangeResult,
    FileInfoResult,
    FileSearchResult,
)
from ..models.transfer import ByteProgressCallback
from .error_boundary import folded
from .file_contents import AsyncFileContents

if TYPE_CHECKING:
    from ..models.transfer import DownloadResult, UploadResult
    from ..models.tree import TreeProgress, TreeReport
    from .file_transfer import AsyncFileTransfer
    from .session import AsyncSession
    from .watch import AsyncWatch
    from .watch_thread import WatchThread


@checked_arguments("path", "source", "destination", "remote")
class AsyncFileSystem(AsyncFileContents):
    """Files of a session.

    Relative paths start at its home directory.
    """

    def __init__(self, session: AsyncSession | None = None) -> None:
        if session is None:  # the official package makes it optional, and fails without it too
            raise TypeError("a file system belongs to a session: use session.file_system")
        super().__init__(session)

    @folded(BoolResult)
    async def create_directory(self, path: str, *, timeout: float | None = None) -> BoolResult:
        """Create a directory and its parents, if they do not exist.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/create_directory
        """
        with time_limit(timeout):
            return await self._run_bool_tool(wire.CreateDirectory(path=path), path)

    @folded(BoolResult)
    async def delete_file(self, path: str, *, timeout: float | None = None) -> BoolResult:
        """Delete a file, or a directory and everything in it.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/delete_file
        """
        with time_limit(timeout):
            return await self._run_bool_tool(wire.DeleteFile(path=path), path)

    delete = delete_file
    remove = delete_file
    rm = delete_file

    @folded(BoolResult)
    async def move_file(self, source: str, destination: str, *, timeout: float | None = None) -> BoolResult:
        """Move or rename a file or a directory.

        Args:
            source: What to move.
            destination: Its new path, not a directory to move it into.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/move_file
        """
        with time_limit(timeout):
            return await self._run_bool_tool(
                wire.MoveFile(source=source, destination=destination), source, "Failed to move file"
            )

    @folded(EditResult)
    async def edit_file(
        self, path: str, edits: Sequence[Mapping[str, str]], dry_run: bool = False, *, timeout: float | None = None
    ) -> EditResult:
        """Replace texts in a file: all of them, or none.

        Args:
            path: The file.
            edits: Replacements, done in this order: `oldText`, of which the first occurrence counts, and `newText`.
            dry_run: Change nothing; `diff` shows what would change, where the service says so.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/edit_file
        """
        with time_limit(timeout):
            reply = await self.session._run_tool(wire.EditFile(path=path, edits=_make_edits(edits), dry_run=dry_run))
            file_text_or_raise(reply, path)
            diff = read_edit_diff(reply.data_or_raise())
            return EditResult(request_id=reply.request_id, success=True, data=True, diff=diff)

    @folded(FileInfoResult)
    async def get_file_info(self, path: str, *, timeout: float | None = None) -> FileInfoResult:
        """Return the size, times and permissions of a file or directory.

        The size is in bytes.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/get_file_info
        """
        with time_limit(timeout):
            reply = await self.session._run_tool(wire.GetFileInfo(path=path))
            info = read_info(file_text_or_raise(reply, path))
            return FileInfoResult(request_id=reply.request_id, success=True, file_info=info)

    async def exists(self, path: str, *, timeout: float | None = None) -> bool:
        """Return whether there is a file or a directory at a path.

        A link that leads to nothing does not count.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            FileError: The path cannot be checked, as in a directory that the session's user may not enter.
            AgentBayError: The service did not answer.

        Wire: CallMcpTool/get_file_info
        """
        with time_limit(timeout):
            reply = await self.session._run_tool(wire.GetFileInfo(path=path))
            try:
                return bool(read_info(file_text_or_raise(reply, path)))
            except (PathNotFoundError, PathNotDirectoryError):
                return False

    @folded(FileSearchResult)
    async def search_files(
        self, path: str, pattern: str, exclude_patterns: Sequence[str] | None = None, *, timeout: float | None = None
    ) -> FileSearchResult:
        """Find files and directories below a directory by name.

        Args:
            path: The directory.
            pattern: What the name must match; `*` stands for any characters, `?` for one.
            exclude_patterns: Patterns of names to skip, with all below them; a comma separates patterns.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/search_files
        """
        with time_limit(timeout):
            excluded = ",".join(exclude_patterns) if exclude_patterns else None
            reply = await self.session._run_tool(
                wire.SearchFiles(path=path, pattern=pattern, exclude_patterns=excluded)
            )
            file_text_or_raise(reply, path)
            return FileSearchResult(
                request_id=reply.request_id, success=True, matches=read_matches(reply.data_or_raise())
            )

    @folded(DirectoryListResult)
    async def list_directory(self, path: str, *, timeout: float | None = None) -> DirectoryListResult:
        """List the entries of a directory, without those of subdirectories.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/list_directory
        """
        with time_limit(timeout):
            reply = await self.session._run_tool(wire.ListDirectory(path=path))
            file_text_or_raise(reply, path)
            return DirectoryListResult(
                request_id=reply.request_id, success=True, entries=read_directory_listing(reply.data_or_raise())
            )

    list = list_directory
    ls = list_directory

    async def upload_file(
        self,
        local_path: str | os.PathLike[str],
        remote_path: str,
        *,
        content_type: str | None = None,
        wait: bool = True,
        wait_timeout: float = 30.0,
        poll_interval: float = 1.5,
        progress_cb: ByteProgressCallback | None = None,
        timeout: float | None = None,
    ) -> UploadResult:
        """Send a local file of any size into the session.

        It goes through the service's storage, not through the session's tools.

        Args:
            local_path: The file on this machine.
            remote_path: Its absolute path in the session, below `get_file_transfer_context_path()`.
            content_type: MIME type to store it with.
            wait: Wait until the session has it.
            wait_timeout: Seconds to wait for that, after the storage has it.
            poll_interval: Longest time between two polls, seconds.
            progress_cb: Called with the bytes so far. What it raises ends the transfer.
            timeout: Seconds for all of it; None is as long as something moves.

        Wire: GetAndLoadInternalContext, GetContextFileUploadUrl, SyncContext, GetContextInfo
        """
        return await self._file_transfer.upload(
            local_path,
            remote_path,
            content_type=content_type,
            wait=wait,
            wait_timeout=wait_timeout,
            poll_interval=poll_interval,
            progress_cb=progress_cb,
            timeout=timeout,
        )

    async def download_file(
        self,
        remote_path: str,
        local_path: str | os.PathLike[str],
        *,
        overwrite: bool = True,
        wait: bool = True,
        wait_timeout: float = 30.0,
        poll_interval: float = 1.5,
        progress_cb: ByteProgressCallback | None = None,
        timeout: float | None = None,
    ) -> DownloadResult:
        """Fetch a file of any size from the session.

        It goes through the service's storage, not through the session's tools. Here it appears whole or not at all.

        Args:
            remote_path: Its absolute path in the session, below `get_file_transfer_context_path()`.
            local_path: Its path on this machine; parent directories are created.
            overwrite: Whether to replace an existing file.
            wait: Wait until the storage has the current version; otherwise fetch the version it has.
            wait_timeout: Seconds to wait for that.
            poll_interval: Longest time between two polls, seconds.
            progress_cb: Called with the bytes so far. What it raises ends the transfer.
            timeout: Seconds for all of it; None is as long as something moves.

        Wire: GetAndLoadInternalContext, SyncContext, GetContextInfo, GetContextFileDownloadUrl
        """
        return await self._file_transfer.download(
            remote_path,
            local_path,
            overwrite=overwrite,
            wait=wait,
            wait_timeout=wait_timeout,
            poll_interval=poll_interval,
            progress_cb=progress_cb,
            timeout=timeout,
        )

    async def get_file_transfer_context_path(self, *, timeout: float | None = None) -> str | None:
        """Return the session's directory for file transfers, or None if unknown.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: GetAndLoadInternalContext
        """
        return await self._file_transfer.context_path(timeout=timeout)

    @cached_property
    def _file_transfer(self) -> AsyncFileTransfer:
        from .file_transfer import AsyncFileTransfer

        return AsyncFileTransfer(self.session.agent_bay, self.session)

    async def push(
        self,
        local: str | os.PathLike[str],
        remote: str,
        *,
        ignore: Iterable[str] = (),
        delete: bool = False,
        checksum: bool = False,
        progress: Callable[[TreeProgress], object] | bool = False,
        timeout: float | None = None,
    ) -> TreeReport:
        """Copy a local directory into one of the session.

        Only what differs is sent. With `delete` both are equal then.

        Each file is replaced atomically, by renaming, and keeps its permissions. Without `delete` nothing is removed:
        an entry that is of another kind in the session is left out, and the report names it in `skipped`. After an
        interruption the same call continues where it was. The session needs the usual programs of Linux: find, tar,
        gzip, base64, sha256sum, xargs and mv.

        Args:
            local: The directory here.
            remote: The directory in the session; created if it does not exist.
            ignore: Patterns as in a `.gitignore`, relative to the directory.
            delete: Remove what exists only in the session. What is ignored stays, with the directory that holds it.
            checksum: Compare contents, not only sizes and times.
            progress: Called with how much was done; True shows a bar; see `agentbay.progress`.
            timeout: Seconds for all of it; None is as long as something moves.

        Raises:
            FileError: Something could not be read or written; what was copied before stays.

        Wire: CallMcpTool/shell, CallMcpTool/write_file, CallMcpTool/read_file
        """
        with time_limit(timeout):
            from .tree_transfer import transfer_tree

            return await transfer_tree(self, "push", local, remote, ignore, delete, checksum, progress)

    async def pull(
        self,
        remote: str,
        local: str | os.PathLike[str],
        *,
        ignore: Iterable[str] = (),
        delete: bool = False,
        checksum: bool = False,
        progress: Callable[[TreeProgress], object] | bool = False,
        timeout: float | None = None,
    ) -> TreeReport:
        """Copy a directory of the session into a local one.

        Only what differs is fetched. With `delete` both are equal then.

        Links that lead out of the directory are not created here, and without `delete` nothing is removed; the report
        names in `skipped` what was left out.

        Args:
            remote: The directory in the session.
            local: The directory here; made if it is not there.
            ignore: Patterns as in a `.gitignore`, relative to the directory.
            delete: Remove what exists only on this machine. What is ignored stays, with the directory that holds it.
            checksum: Compare contents, not only sizes and times.
            progress: Called with how much was done; True shows a bar; see `agentbay.progress`.
            timeout: Seconds for all of it; None is as long as something moves.

        Raises:
            FileError: There is no such directory, or something could not be written. If files could not be read, the
                error names them; everything else was copied, and nothing was deleted.

        Wire: CallMcpTool/shell, CallMcpTool/write_file, CallMcpTool/read_file
        """
        with time_limit(timeout):
            from .tree_transfer import transfer_tree

            return await transfer_tree(self, "pull", local, remote, ignore, delete, checksum, progress)

    def watch(self, path: str, *, interval: float = 0.5) -> AsyncWatch:
        """Iterate over the changes below a directory, each reported once.

            async with files.watch("src") as changes:
                async for change in changes:
                    print(change.event_type, change.path)

        Args:
            path: The directory.
            interval: Seconds between two polls, where the service does not push changes. Of the changes of a
                file in between, one event is reported.

        Raises:
            FileError: From the first step, if there is no such directory; later, if changes are lost.

        Wire: WebSocket wuying_filesystem/subscribe_file_change; CallMcpTool/get_file_change
        """
        from .watch import AsyncWatch

        return AsyncWatch(self, path, interval)

    def watch_directory(
        self,
        path: str,
        callback: Callable[[builtins.list[FileChangeEvent]], object],
        interval: float = 0.5,
        stop_event: threading.Event | None = None,
    ) -> WatchThread:
        """Make a thread that calls a function with changes below a directory.

        Start it yourself.

        Args:
            path: The directory.
            callback: Called in that thread with a list of changes. What it raises is logged.
            interval: Seconds between two polls, where the service does not push changes.
            stop_event: Set it to end the thread. If None, one is made: `stop_event` of the thread. Changes are
                reported once its `ready_event` is set.

        Wire: WebSocket wuying_filesystem/subscribe_file_change; CallMcpTool/get_file_change
        """
        from .watch_thread import WatchThread

        return WatchThread(self.session, path, callback, interval, stop_event)

    @folded(FileChangeResult)
    async def _get_file_change(self, path: str) -> FileChangeResult:
        """Return the changes below a directory since the last call.

        The first call returns none.

        Wire: CallMcpTool/get_file_change
        """
        reply = await self.session._run_tool(wire.GetFileChange(path=path))
        text = file_text_or_raise(reply, path)
        return FileChangeResult(request_id=reply.request_id, success=True, events=read_changes(text), raw_data=text)

    async def _run_bool_tool(self, tool: Tool, path: str, fallback: str | None = None) -> BoolResult:
        reply = await self.session._run_tool(tool)
        if reply.data_or_raise().is_error and not reply.data_or_raise().text and fallback:
            raise FileError(fallback, request_id=reply.request_id)
        file_text_or_raise(reply, path)
        return BoolResult(request_id=reply.request_id, success=True, data=True)


def _make_edits(edits: Sequence[Mapping[str, str]]) -> list[wire.TextReplacement]:
    try:
        made = [wire.TextReplacement(old_text=edit["oldText"], new_text=edit["newText"]) for edit in edits]
    except (KeyError, TypeError) as error:
        raise InvalidArgumentError(
            f"Each edit must be a dict with 'oldText' and 'newText': {error} is at fault"
        ) from None
    if not all(isinstance(text, str) for edit in made for text in (edit.old_text, edit.new_text)):
        raise InvalidArgumentError("oldText and newText must be strings.")
    return made
