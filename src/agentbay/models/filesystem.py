"""Files: contents, listings, and the results of file operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import define, field

from .base import BaseResult, mapped


@define
class FileContentResult(BaseResult):
    """A file read as text."""

    content: str = ""
    error_message: str = ""


@define
class BinaryFileContentResult(BaseResult):
    """A file read as bytes; `size` is its length in bytes if known."""

    content: bytes = b""
    error_message: str = ""
    content_type: str | None = None
    size: int | None = None


@define(frozen=True)
class DirectoryEntry:
    """One entry of a directory. `size` is bytes, 0 where the service does not tell."""

    name: str
    is_directory: bool = False
    size: int = 0

    @property
    def is_file(self) -> bool:
        """Whether it is anything but a directory."""
        return not self.is_directory


def _entries(values: Sequence[DirectoryEntry | dict[str, Any]] | None) -> list[DirectoryEntry]:
    return [
        value
        if isinstance(value, DirectoryEntry)
        else DirectoryEntry(value["name"], bool(value.get("isDirectory")), int(value.get("size") or 0))
        for value in values or ()
    ]


@define
class DirectoryListResult(BaseResult):
    """The entries of a directory, in the order the service gives them (the local runtime sorts by name)."""

    entries: list[DirectoryEntry] = field(default=None, converter=_entries)
    error_message: str = ""


@define
class FileInfoResult(BaseResult):
    """What is known of a file; `file_info` holds it as the service names it."""

    file_info: dict[str, Any] = field(default=None, converter=mapped)
    error_message: str = ""

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return bool(self.file_info.get("isFile"))

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return bool(self.file_info.get("isDirectory"))

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return int(self.file_info.get("size") or 0)

    @property
    def permissions(self) -> str:
        """Its permission bits in octal, such as "644"."""
        return str(self.file_info.get("permissions") or "")
