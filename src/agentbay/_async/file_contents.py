"""Reading and writing the contents of files in a session."""

from __future__ import annotations

import base64
import contextlib
import errno
import os
from collections.abc import Sequence
from typing import Literal, overload

from .._arguments import checked_arguments
from .._transport.command import read_command_result
from .._transport.deadline import Deadline, time_limit, to_timeout_ms
from .._transport.file_errors import file_text_or_raise, make_file_error, read_file_error
from .._transport.files import (
    READ_CHUNK_BYTES,
    WRITE_CHUNK_BYTES,
    decode_base64,
    decode_text,
    get_size,
    read_contents,
    read_info,
    split_text,
    to_bytes,
)
from .._transport.shell_scripts import discard_script, staging_path, write_bytes_script
from .._wire.tools import GetFileInfo, ReadFile, ReadMultipleFiles, Shell, WriteFile, mark_internal
from ..errors import AgentBayError, InvalidArgumentError
from ..models.base import BoolResult
from ..models.filesystem import BinaryFileContentResult, FileContentResult, MultipleFileContentResult
from .error_boundary import folded
from .service import AsyncBaseService
from .waiting import clean_up

_DIRECT_WRITE_BYTES = 8 << 20  # bytes of one call on the direct link; in JSON one may take six
_DISCARD_TIMEOUT_SECONDS = 5.0  # for removing what a failed write has left
_REPLACEMENT_CHARACTER = "\N{REPLACEMENT CHARACTER}"


@checked_arguments("path", "paths", content=None)  # `to_bytes` raises a TypeError, as `open(...).write` does
class AsyncFileContents(AsyncBaseService):
    """Read and write files of a session."""

    @overload
    async def read_file(
        self, path: str, *, format: Literal["text"] = "text", timeout: float | None = None
    ) -> FileContentResult: ...
    @overload
    async def read_file(
        self, path: str, *, format: Literal["bytes"], timeout: float | None = None
    ) -> BinaryFileContentResult: ...
    async def read_file(
        self, path: str, *, format: Literal["text", "bytes"] = "text", timeout: float | None = None
    ) -> FileContentResult | BinaryFileContentResult:
        """Read a whole file.

        In a session without a link of its own it is read in pieces of 50 KiB, as the published client does; if it is
        replaced meanwhile, they may be of both files. To read one version of it there, copy it first, or `pull` it.

        Args:
            path: The file.
            format: "text" gives `content` as str, "bytes" as bytes. A file that is no UTF-8 cannot be read as text.
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            ValueError: If `format` is neither.

        Wire: CallMcpTool/read_file
        """
        with time_limit(timeout):
            if format == "text":
                return await self._read_text(path)
            if format == "bytes":
                return await self._read_bytes(path)
        raise ValueError(f"format must be 'text' or 'bytes', not {format!r}")

    async def read(self, path: str, *, timeout: float | None = None) -> FileContentResult:
        """Read a whole file as text, like `read_file(path)`.

        Args:
            timeout: Seconds it may take; None is the client's time limit.
        """
        return await self.read_file(path, timeout=timeout)

    @folded(BoolResult)
    async def write_file(
        self, path: str, content: str | bytes, mode: str = "overwrite", *, timeout: float | None = None
    ) -> BoolResult:
        """Write to a file, and create its parent directories.

        A file that is replaced is the old one or the new one whatever happens, with one exception: more than 51 KiB of
        text, in a session without a link of its own, are written piece by piece, as the published client does.

        Args:
            path: The file.
            content: Text, which is written as UTF-8, or bytes.
            mode: "overwrite" replaces what is there, "append" adds to it.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/write_file; where that takes no raw bytes, also shell for bytes that are no UTF-8, or many
        """
        with time_limit(timeout):
            if mode not in ("overwrite", "append"):
                raise InvalidArgumentError(f"Invalid write mode: {mode}. Must be 'overwrite' or 'append'.")
            deadline = Deadline(self.session.timeout)
            data = to_bytes(content, "content")
            if self.session._takes_raw_calls(WriteFile) and (
                isinstance(content, bytes) or len(data) > _DIRECT_WRITE_BYTES
            ):
                return await self._write_raw(path, data, mode, deadline)
            in_one_call = len(data) <= (_DIRECT_WRITE_BYTES if self._has_direct_link else WRITE_CHUNK_BYTES)
            if isinstance(content, str) and (in_one_call or not self._has_direct_link):
                return await self._write_text(path, content, mode, deadline)
            if in_one_call:
                # Bytes that are UTF-8 need one tool call instead of two.
                with contextlib.suppress(UnicodeDecodeError):
                    return await self._write_text(path, data.decode(), mode, deadline)
            return await self._write_bytes(path, data, mode, deadline)

    write = write_file

    @folded(MultipleFileContentResult)
    async def read_multiple_files(
        self, paths: Sequence[str], *, timeout: float | None = None
    ) -> MultipleFileContentResult:
        """Read several text files in one call.

        Files that cannot be read are in `errors`, the others in `contents`.

        Args:
            paths: The files.
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/read_multiple_files
        """
        with time_limit(timeout):
            wanted = list(paths)
            reply = await self.session._run_tool(ReadMultipleFiles(paths=wanted))
            file_text_or_raise(reply)
            contents, errors = read_contents(reply.data_or_raise(), wanted)
            return MultipleFileContentResult(
                request_id=reply.request_id,
                success=True,
                contents=contents,
                errors=errors,
                exceptions={
                    path: read_file_error(reason, path, request_id=reply.request_id) for path, reason in errors.items()
                },
            )

    @property
    def _has_direct_link(self) -> bool:
        # A session's own link carries contents of any size; the way through the service does not.
        return bool(self.session.link_url and self.session.token)

    async def _write_text(self, path: str, content: str, mode: str, deadline: Deadline) -> BoolResult:
        request_id = ""
        for piece in split_text(content, _DIRECT_WRITE_BYTES if self._has_direct_link else WRITE_CHUNK_BYTES):
            call = WriteFile(path=path, content=piece, mode=mode)
            reply = await self.session._run_tool(call, deadline=deadline)
            file_text_or_raise(reply, path)
            request_id, mode = reply.request_id, "append"
        return BoolResult(request_id=request_id, success=True, data=True)

    async def _write_raw(self, path: str, content: bytes, mode: str, deadline: Deadline) -> BoolResult:
        reply = await self.session._run_tool(
            WriteFile(path=path, content="", mode=mode), deadline=deadline, body=content
        )
        file_text_or_raise(reply, path)
        return BoolResult(request_id=reply.request_id, success=True, data=True)

    async def _write_bytes(self, path: str, content: bytes, mode: str, deadline: Deadline) -> BoolResult:
        """Write bytes: send them as base64 and decode them in the session.

        Tools take text only.
        """
        # Random, so that two writers never share a staging file and nobody in the session can put a link in its place.
        token = os.urandom(8).hex()
        staged = staging_path(token)
        text = base64.b64encode(content).decode()
        try:
            await self._write_text(staged, text, "append", deadline)
            command = mark_internal(write_bytes_script(path, staged, token, append=mode == "append"))
            limit = to_timeout_ms(deadline.remaining())
            reply = await self.session._run_tool(Shell(command=command, timeout_ms=limit), deadline=deadline)
            placed = read_command_result(reply)
        except BaseException:  # also a cancellation, after which nobody else knows what is staged
            await clean_up(lambda: self._discard(path, staged, token))
            raise
        if not placed:
            await clean_up(lambda: self._discard(path, staged, token))  # a killed script could not do it itself
            reason = placed.error_message.strip()
            raise read_file_error(f"Failed to write file: {path}, error: {reason}", request_id=reply.request_id)
        return BoolResult(request_id=reply.request_id, success=True, data=True)

    async def _discard(self, path: str, staged: str, token: str) -> None:
        limit = int(_DISCARD_TIMEOUT_SECONDS * 1000)
        script = Shell(command=mark_internal(discard_script(path, staged, token)), timeout_ms=limit)
        with contextlib.suppress(AgentBayError):  # the failure before it is the one to report
            await self.session._run_tool(script, timeout=_DISCARD_TIMEOUT_SECONDS)

    @folded(FileContentResult)
    async def _read_text(self, path: str) -> FileContentResult:
        request_id, parts = await self._read_parts(path, None)
        content = "".join(parts)
        # The file may hold that character, or the service put it in place of bytes that are not UTF-8.
        # A piece can also end within a character, and its halves then come back as that character.
        if _REPLACEMENT_CHARACTER in content:
            request_id, parts = await self._read_parts(path, "binary")
            content = decode_text(b"".join(map(decode_base64, parts)), path)
        return FileContentResult(request_id=request_id, success=True, content=content)

    @folded(BinaryFileContentResult)
    async def _read_bytes(self, path: str) -> BinaryFileContentResult:
        if self.session._takes_raw_calls(ReadFile):
            reply = await self.session._run_tool(ReadFile(path=path), body=b"")
            file_text_or_raise(reply, path)
            content = reply.content
            return BinaryFileContentResult(
                request_id=reply.request_id, success=True, content=content, size=len(content)
            )
        request_id, parts = await self._read_parts(path, "binary")
        content = b"".join(decode_base64(part) for part in parts)
        return BinaryFileContentResult(request_id=request_id, success=True, content=content, size=len(content))

    async def _read_parts(self, path: str, form: str | None) -> tuple[str, Sequence[str]]:
        deadline = Deadline(self.session.timeout)
        if self._has_direct_link:
            reply = await self.session._run_tool(ReadFile(path=path, format=form), deadline=deadline)
            return reply.request_id, [file_text_or_raise(reply, path)]
        found = await self.session._run_tool(GetFileInfo(path=path), deadline=deadline)
        info = read_info(file_text_or_raise(found, path))
        if not info or info.get("isDirectory"):
            message, number = f"Path does not exist or is a directory: {path}", errno.EISDIR if info else errno.ENOENT
            raise make_file_error(message, number=number, path=path, request_id=found.request_id)
        request_id, size = found.request_id, get_size(info)
        parts = []
        for offset in range(0, size, READ_CHUNK_BYTES):
            call = ReadFile(path=path, offset=offset, length=min(READ_CHUNK_BYTES, size - offset), format=form)
            reply = await self.session._run_tool(call, deadline=deadline)
            parts.append(file_text_or_raise(reply, path))
            request_id = reply.request_id
        return request_id, parts
