"""Files in a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

from .._transport.deadline import Deadline
from .._transport.files import (
    READ_CHUNK,
    decode_base64,
    read_info,
    read_listing,
    size_of,
    split_text,
)
from .._wire.tools import GetFileInfo, ListDirectory, ReadFile, WriteFile
from ..errors import FileError, InvalidArgumentError
from ..models.base import BoolResult
from ..models.filesystem import BinaryFileContentResult, DirectoryListResult, FileContentResult
from .door import returns
from .service import AsyncBaseService, text_of


class AsyncFileSystem(AsyncBaseService):
    """Read and write files of a session. Relative paths start at its home directory."""

    @overload
    async def read_file(self, path: str, *, format: Literal["text"] = "text") -> FileContentResult: ...
    @overload
    async def read_file(self, path: str, *, format: Literal["bytes"]) -> BinaryFileContentResult: ...
    async def read_file(
        self, path: str, *, format: Literal["text", "bytes"] = "text"
    ) -> FileContentResult | BinaryFileContentResult:
        """Read a whole file.

        Args:
            path: The file.
            format: "text" gives `content` as str, "bytes" as bytes.

        Raises:
            ValueError: If `format` is neither.

        Wire: CallMcpTool/read_file
        """
        if format == "text":
            return await self._read_text(path)
        if format == "bytes":
            return await self._read_bytes(path)
        raise ValueError(f"format must be 'text' or 'bytes', not {format!r}")

    async def read(self, path: str) -> FileContentResult:
        """Read a whole file as text; the same as `read_file(path)`."""
        return await self._read_text(path)

    @returns(BoolResult)
    async def write_file(self, path: str, content: str, mode: str = "overwrite") -> BoolResult:
        """Write text to a file; directories on the way are made.

        Args:
            path: The file.
            content: What to write, as UTF-8.
            mode: "overwrite" replaces what is there, "append" adds to it.

        Wire: CallMcpTool/write_file
        """
        if mode not in ("overwrite", "append"):
            raise InvalidArgumentError(f"Invalid write mode: {mode}. Must be 'overwrite' or 'append'.")
        deadline = Deadline(self.session.timeout)
        request_id = ""
        for piece in [content] if self._goes_direct else split_text(content):
            call = WriteFile(path=path, content=piece, mode=mode)
            reply = await self.session.run_tool(call, deadline=deadline)
            text_of(reply, FileError)
            request_id, mode = reply.request_id, "append"
        return BoolResult(request_id=request_id, success=True, data=True)

    write = write_file

    @returns(DirectoryListResult)
    async def list_directory(self, path: str) -> DirectoryListResult:
        """List the entries of a directory, without those of its subdirectories.

        Wire: CallMcpTool/list_directory
        """
        reply = await self.session.run_tool(ListDirectory(path=path))
        text_of(reply, FileError)
        return DirectoryListResult(request_id=reply.request_id, success=True, entries=read_listing(reply.needed()))

    list = list_directory
    ls = list_directory

    @property
    def _goes_direct(self) -> bool:
        # A session's own link carries contents of any size; the way through the service does not.
        return bool(self.session.link_url and self.session.token)

    @returns(FileContentResult)
    async def _read_text(self, path: str) -> FileContentResult:
        request_id, parts = await self._read_parts(path, None)
        return FileContentResult(request_id=request_id, success=True, content="".join(parts))

    @returns(BinaryFileContentResult)
    async def _read_bytes(self, path: str) -> BinaryFileContentResult:
        request_id, parts = await self._read_parts(path, "binary")
        content = b"".join(decode_base64(part) for part in parts)
        return BinaryFileContentResult(request_id=request_id, success=True, content=content, size=len(content))

    async def _read_parts(self, path: str, form: str | None) -> tuple[str, Sequence[str]]:
        deadline = Deadline(self.session.timeout)
        if self._goes_direct:
            reply = await self.session.run_tool(ReadFile(path=path, format=form), deadline=deadline)
            return reply.request_id, [text_of(reply, FileError)]
        found = await self.session.run_tool(GetFileInfo(path=path), deadline=deadline)
        info = read_info(text_of(found, FileError))
        if not info or info.get("isDirectory"):
            raise FileError(f"Path does not exist or is a directory: {path}", request_id=found.request_id)
        request_id, size = found.request_id, size_of(info)
        parts = []
        for offset in range(0, size, READ_CHUNK):
            call = ReadFile(path=path, offset=offset, length=min(READ_CHUNK, size - offset), format=form)
            reply = await self.session.run_tool(call, deadline=deadline)
            parts.append(text_of(reply, FileError))
            request_id = reply.request_id
        return request_id, parts
