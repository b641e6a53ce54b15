"""Progress and results of `push` and `pull`."""

from __future__ import annotations

from .._lazy_attrs import define, field


@define(frozen=True)
class TreeProgress:
    """Progress of a push or pull.

    Attributes:
        files_done, files_total: Number of files, directories and links to copy.
        bytes_done, bytes_total: Bytes of file contents, before compression.
    """

    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int


@define(slots=False)
class TreeReport:
    """What a push or pull did.

    Paths are relative to the directory, with slashes, sorted.

    Attributes:
        copied: What was missing or different in the target.
        deleted: What was removed from the target, only with `delete`.
        skipped: What was not copied: symbolic links out of the directory (of a pull), FIFOs, sockets and devices,
            temporary files of transfers, and what is of another kind in the target and may not be removed there.
        unchanged: How many files were the same already.
        bytes: Bytes of the files that were copied.
    """

    copied: list[str] = field(factory=list)
    deleted: list[str] = field(factory=list)
    skipped: list[str] = field(factory=list)
    unchanged: int = 0
    bytes: int = 0
