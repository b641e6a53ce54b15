"""Results of file operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._lazy_attrs import define, field
from ..errors import FileError
from .base import BaseResult, BoolResult, IterableResult, dict_or_empty, list_or_empty


@define(slots=False)
class FileContentResult(BaseResult):
    """Content of a file as text."""

    content: str = ""
    error_message: str = ""

    def _success_html(self) -> str | None:
        from .. import _html

        return _html.document(self.content)


@define(slots=False)
class BinaryFileContentResult(BaseResult):
    """Content of a file as bytes.

    `size` is its length, None if unknown.
    """

    content: bytes = b""
    error_message: str = ""
    content_type: str | None = None
    size: int | None = None

    def _success_html(self) -> str | None:
        from .. import _html

        return _html.binary(self.content)


@define(frozen=True, slots=False)
class DirectoryEntry:
    """One entry of a directory.

    `size` is in bytes, 0 if unknown.
    """

    name: str
    is_directory: bool = False
    size: int = 0

    @property
    def is_file(self) -> bool:
        """Whether it is anything but a directory."""
        return not self.is_directory


def _make_entries(values: Sequence[DirectoryEntry | dict[str, Any]] | None) -> list[DirectoryEntry]:
    return [
        value
        if isinstance(value, DirectoryEntry)
        else DirectoryEntry(value["name"], bool(value.get("isDirectory")), int(value.get("size") or 0))
        for value in values or ()
    ]


@define(slots=False)
class DirectoryListResult(BaseResult, IterableResult[DirectoryEntry]):
    """The entries of a directory, in the order of the service.

    The local runtime sorts them by name.
    """

    _LIST_FIELD = "entries"

    entries: list[DirectoryEntry] = field(default=None, converter=_make_entries)
    error_message: str = ""

    def _success_html(self) -> str | None:
        from .. import _html

        rows = [
            (f"{entry.name}/", "") if entry.is_directory else (entry.name, _html.format_size(entry.size))
            for entry in self.entries
        ]
        return _html.table(("name", "size"), rows)


@define(slots=False)
class FileInfoResult(BaseResult):
    """Metadata of a file.

    `file_info` has it under the names of the service.
    """

    file_info: dict[str, Any] = field(default=None, converter=dict_or_empty)
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
        digits = self.file_info.get("permissions", "")
        return str(digits).zfill(3) if digits != "" else ""  # 044 is read as a number

    def _success_html(self) -> str | None:
        from .. import _html

        size = {"size": _html.format_size(self.size)} if "size" in self.file_info else {}
        return _html.fact_table("", {**self.file_info, **size})


@define(slots=False)
class EditResult(BoolResult):
    """Outcome of an edit.

    `diff` is a unified diff, or "" if the service sends none.
    """

    diff: str = field(default="", kw_only=True)


@define(slots=False)
class MultipleFileContentResult(BaseResult):
    """Contents of several files as text.

    Attributes:
        contents: The text of each file, by the requested path.
        errors: Why a file could not be read, by the requested path. Keyword only.
        exceptions: The same as typed errors. Keyword only.
    """

    contents: dict[str, str] = field(default=None, converter=dict_or_empty)
    error_message: str = ""
    errors: dict[str, str] = field(factory=dict, kw_only=True)
    exceptions: dict[str, FileError] = field(factory=dict, kw_only=True, eq=False, repr=False)

    def _repr_html_(self) -> str | None:
        """Return HTML with each file, or why it could not be read."""
        from .. import _html

        read = (_html.note(path) + _html.document(content) for path, content in self.contents.items())
        unread = (_html.note(path) + _html.failure(why) for path, why in self.errors.items())
        return _html.stack(*read, *unread) if self.contents or self.errors else super()._repr_html_()


@define(slots=False)
class FileSearchResult(BaseResult, IterableResult[str]):
    """The paths that match, in the order of the service.

    The local runtime sorts them.
    """

    _LIST_FIELD = "matches"

    matches: list[str] = field(default=None, converter=list_or_empty)
    error_message: str = ""

    def _success_html(self) -> str | None:
        from .. import _html

        return _html.table(("path",), [(path,) for path in self.matches])


@define(slots=False)
class FileChangeEvent:
    """One change of a file or a directory.

    Attributes:
        event_type: "create", "modify" or "delete".
        path: Path of the file or directory.
        path_type: "file" or "directory".
    """

    event_type: str = ""
    path: str = ""
    path_type: str = ""


@define(slots=False)
class FileChangeResult(BaseResult, IterableResult[FileChangeEvent]):
    """Changes of files, sorted by path.

    `raw_data` is the text that the service sent.
    """

    _LIST_FIELD = "events"

    events: list[FileChangeEvent] = field(default=None, converter=list_or_empty)
    raw_data: str = ""
    error_message: str = ""

    def _success_html(self) -> str | None:
        from .. import _html

        rows = [(event.event_type, event.path, event.path_type) for event in self.events]
        return _html.table(("change", "path", "kind"), rows)

    def has_changes(self) -> bool:
        """Whether anything has changed."""
        return bool(self.events)

    def get_modified_files(self) -> list[str]:
        """Return the paths of files that were modified."""
        return self._files("modify")

    def get_created_files(self) -> list[str]:
        """Return the paths of files that were created."""
        return self._files("create")

    def get_deleted_files(self) -> list[str]:
        """Return the paths of files that were deleted."""
        return self._files("delete")

    def _files(self, kind: str) -> list[str]:
        return [event.path for event in self.events if event.event_type == kind and event.path_type == "file"]
