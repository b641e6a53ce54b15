"""What became of a directory that was pushed or pulled."""

from __future__ import annotations

from attrs import define, field


@define(frozen=True)
class TreeProgress:
    """How far a push or pull has come.

    Attributes:
        files_done, files_total: Of what has to be copied, directories and links too.
        bytes_done, bytes_total: Of file contents, before compression.
    """

    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int


@define(slots=False)
class TreeReport:
    """What a push or pull did. Paths are relative to the directory, with slashes, sorted.

    Attributes:
        copied: What was not there, or was not the same.
        deleted: What was removed: only with `delete`, or where a directory had to make way for a file.
        skipped: Links that lead out of the directory, which a pull does not make.
        unchanged: How many were the same already.
        bytes: Of the files copied.
    """

    copied: list[str] = field(factory=list)
    deleted: list[str] = field(factory=list)
    skipped: list[str] = field(factory=list)
    unchanged: int = 0
    bytes: int = 0
