"""The files of contexts."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from .._arguments import checked_arguments
from .._handles import Handle
from .._transport.contexts import to_file_entry
from .._transport.deadline import time_limit
from .._wire.context_store import (
    DeleteContextFile,
    DescribeContextFiles,
    GetContextFileDownloadUrl,
    GetContextFileUploadUrl,
)
from ..models.base import OperationResult
from ..models.context_results import ContextFileEntry, ContextFileListResult, ContextTransfer, FileUrlResult
from ..models.transfer import ByteProgressCallback
from .context_transfer import download_from_context, upload_to_context
from .error_boundary import folded

if TYPE_CHECKING:
    from .._transport.reply import Reply
    from .._wire.context_store import PresignedUrl
    from .client import AsyncAgentBay
    from .transport import AsyncTransport


@checked_arguments()
class AsyncContextFiles(Handle):
    """List, copy and delete the files of contexts."""

    agent_bay: AsyncAgentBay

    @property
    def strict(self) -> bool:
        """Whether a failed operation raises instead of returning a failed result."""
        return self.agent_bay.strict

    @property
    def _transport(self) -> AsyncTransport:
        return self.agent_bay.client

    @folded(ContextFileListResult, unless_http_error=True)
    async def list_files(
        self,
        context_id: str,
        parent_folder_path: str,
        page_number: int = 1,
        page_size: int = 50,
        max_results: int | None = None,
        next_token: str | None = None,
        *,
        timeout: float | None = None,
    ) -> ContextFileListResult:
        """List a folder of a context, one page at a time.

        To read all, use `iter_files`.

        Args:
            context_id: The context.
            parent_folder_path: The folder.
            page_number: Which page, from 1; if neither of the last two arguments is given.
            page_size: How many per page.
            max_results: How many per page, by cursor.
            next_token: Cursor of the page, from the result of the one before; None is the first.
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            APIError: If the service refuses with an HTTP error.

        Wire: DescribeContextFiles
        """
        with time_limit(timeout):
            by_number = max_results is None and next_token is None
            action = DescribeContextFiles(
                context_id=context_id,
                parent_folder_path=parent_folder_path,
                page_number=page_number if by_number else None,
                page_size=page_size if by_number else None,
                max_results=max_results,
                next_token=next_token,
            )
            reply = await self._transport.call(action)
            return ContextFileListResult(
                request_id=reply.request_id,
                success=True,
                entries=[to_file_entry(found) for found in reply.data or ()],
                count=reply.count,
                next_token=reply.next_token,
            )

    async def iter_files(
        self, context_id: str, parent_folder_path: str, limit: int = 100, *, timeout: float | None = None
    ) -> AsyncIterator[ContextFileEntry]:
        """Iterate over all entries of a folder, one call per page.

        Args:
            context_id: The context.
            parent_folder_path: The folder; what its subfolders hold is not in it.
            limit: How many per page.
            timeout: Seconds that each call may take; None is the client's time limit.

        Raises:
            AgentBayError: If a page cannot be read.

        Wire: DescribeContextFiles
        """
        token: str | None = None
        while True:
            listed = await self.list_files(context_id, parent_folder_path, 1, 50, limit, token, timeout=timeout)
            page = listed.unwrap()
            for entry in page.entries:
                yield entry
            token = page.next_token
            if not token:
                return

    async def _list_folder(self, context_id: str, folder: str, page_size: int) -> list[ContextFileEntry]:
        """Return all entries of a folder, by numbered pages."""
        entries: list[ContextFileEntry] = []
        for number in itertools.count(1):
            page = (await self.list_files(context_id, folder, number, page_size)).unwrap()
            entries += page.entries
            if len(page.entries) < page_size or len(entries) == page.count:
                break
        return entries

    @folded(OperationResult, unless_http_error=True, data=False)
    async def delete_file(self, context_id: str, file_path: str, *, timeout: float | None = None) -> OperationResult:
        """Delete a file of a context.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            APIError: If the service refuses with an HTTP error.

        Wire: DeleteContextFile
        """
        with time_limit(timeout):
            reply = await self._transport.call(DeleteContextFile(context_id=context_id, file_path=file_path))
            return OperationResult(request_id=reply.request_id, success=True, data=True)

    @folded(FileUrlResult, unless_http_error=True)
    async def get_file_upload_url(
        self, context_id: str, file_path: str, *, timeout: float | None = None
    ) -> FileUrlResult:
        """Make a presigned URL to upload a file with PUT.

        No key is needed with it.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            APIError: If the service refuses with an HTTP error.

        Wire: GetContextFileUploadUrl
        """
        with time_limit(timeout):
            return _file_url_result(
                await self._transport.call(GetContextFileUploadUrl(context_id=context_id, file_path=file_path))
            )

    @folded(FileUrlResult, unless_http_error=True)
    async def get_file_download_url(
        self, context_id: str, file_path: str, *, timeout: float | None = None
    ) -> FileUrlResult:
        """Make a presigned URL to download a file with GET.

        No key is needed with it.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            APIError: If the service refuses with an HTTP error.

        Wire: GetContextFileDownloadUrl
        """
        with time_limit(timeout):
            return _file_url_result(
                await self._transport.call(GetContextFileDownloadUrl(context_id=context_id, file_path=file_path))
            )

    async def upload(
        self,
        context_id: str,
        local_path: str | os.PathLike[str],
        path: str,
        *,
        progress: ByteProgressCallback | None = None,
        timeout: float | None = None,
    ) -> ContextTransfer:
        """Copy a local file or directory into a context.

        Args:
            context_id: The context.
            local_path: The file or directory. Links to directories are not followed; empty directories are left out.
            path: Its path in the context.
            progress: Called with the bytes so far, of all files together. What it raises ends the copying.
            timeout: Seconds that all may take; None is no limit. Nothing may stand still for more than 60 s.

        Raises:
            FileError: If a local file cannot be read, or a copy has not the size of the original.
            AgentBayError: If the service or its storage refuses, or cannot be reached.

        Wire: GetContextFileUploadUrl, GetContextFileDownloadUrl
        """
        with time_limit(timeout):
            return await upload_to_context(self, context_id, local_path, path, progress)

    async def download(
        self,
        context_id: str,
        path: str,
        local_path: str | os.PathLike[str],
        *,
        overwrite: bool = True,
        progress: ByteProgressCallback | None = None,
        timeout: float | None = None,
    ) -> ContextTransfer:
        """Copy a file or folder of a context to this machine.

        Each file appears whole or not at all.

        Args:
            context_id: The context.
            path: The file or folder in the context.
            local_path: Its path here; parent directories are created.
            overwrite: Whether to replace existing files.
            progress: Called with the bytes so far, of all files together. What it raises ends the copying.
            timeout: Seconds that all may take; None is no limit. Nothing may stand still for more than 60 s.

        Raises:
            FileError: If a local file cannot be written, or a copy has not the size of the original.
            NotFoundError: If there is no such file or folder.
            AgentBayError: If the service or its storage refuses, or cannot be reached.

        Wire: DescribeContextFiles, GetContextFileDownloadUrl
        """
        with time_limit(timeout):
            return await download_from_context(self, context_id, path, local_path, overwrite, progress)


def _file_url_result(reply: Reply[PresignedUrl]) -> FileUrlResult:
    found = reply.data_or_raise()
    return FileUrlResult(request_id=reply.request_id, success=True, url=found.url, expire_time=found.expire_time)
