"""What contexts hold, and what keeps it must be able to do: this disk (`disk.py`), or a bucket (`bucket.py`).

A change of many files is one commit of steps: staged files, folders, links, deletions. All of them are done or none,
whatever happens; when `Contents.commit` returns, they are done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from agentbay.local.contexts.directory_tree import ContextTree
    from agentbay.local.contexts.name_registry import NameRegistry

Owner = tuple[int, int]

CommitStep = list[
    Any
]  # ["put", key, staged, expires, archive] | ["dir", key, mode] | ["link", key, target] | ["delete", key]


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, link or directory below some top.

    Attributes:
        path: Relative to that top.
        kind: "file", "link" or "dir".
        held: By what name a snapshot finds the content of the file.
    """

    path: str
    kind: str
    mode: int
    size: int
    mtime_ns: int
    target: str = ""
    content_id: str = ""


class StagingDirectory:
    """A directory on this disk for files that are on their way into a context."""

    def __init__(self, directory: Path, owner: Owner) -> None:
        self.directory, self._owner, self._made = directory, owner, 0

    def create_file(self, mode: int = 0o644) -> tuple[str, int]:
        """Make a file; return its name and a descriptor for the caller to fill and close."""
        self._made += 1
        name = str(self._made)
        fd = os.open(self.directory / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.fchown(fd, *self._owner)
        os.fchmod(fd, (mode & 0o777) | 0o600)  # one that its owner could not read would be lost
        return name, fd

    def path(self, name: str) -> str:
        """Where a file is."""
        return str(self.directory / name)


class Snapshot(Protocol):
    """All that was below a key at one moment, whatever is committed later."""

    @property
    def entries(self) -> list[Entry]:
        """What there was; each directory comes before what is in it."""
        ...

    def open(self, entry: Entry) -> IO[bytes]:
        """Open a file; it can be read from any place on."""
        ...

    def iterate_files(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, IO[bytes]]]:
        """Open files one after the other, to be read to their ends; each is closed when the next comes."""
        ...


class ContextReader(Protocol):
    """What a context holds while `Store.reading` keeps commits out."""

    def open(self, key: str) -> IO[bytes]:
        """Open a file. It can be read to its end, whatever is committed later.

        Raises:
            FileNotFoundError: There is none.
        """
        ...

    def children(self, key: str) -> list[Entry]:
        """List a directory, sorted by name; one that is not there is empty."""
        ...

    def snapshot(self, key: str, staging: StagingDirectory, only: str = "") -> Snapshot:
        """Keep what is below a key, or at `only` below it, as long as the staging directory is there."""
        ...

    def archive_keys(self, top: str) -> list[str]:
        """Return the keys below `top` that upload mode Archive has made."""
        ...


class ContentBackend(Protocol):
    """Keeps what contexts hold. The store sees to it that of one context only one change is made at a time."""

    @property
    def name_registry(self) -> NameRegistry | None:
        """The names that contexts have for all who share these contents; None: nobody does."""
        ...

    def create(self, context_id: str) -> None:
        """Make an empty context."""
        ...

    def delete(self, context_id: str) -> None:
        """Delete all that a context holds; what is gone already is no error."""
        ...

    def clear(self, context_id: str) -> None:
        """Delete all files of a context, and begin another epoch."""
        ...

    def epoch(self, context_id: str) -> int:
        """Return how often a context has been cleared.

        Raises:
            NotFoundError: There is no such context any more.
        """
        ...

    def staging(self) -> AbstractContextManager[StagingDirectory]:
        """Make a staging directory, removed at the end."""
        ...

    def prepare(self, context_id: str, staging: StagingDirectory, steps: Sequence[CommitStep]) -> None:
        """Do what of a commit takes long and shows nowhere."""
        ...

    def commit(
        self, context_id: str, staging: StagingDirectory, steps: Sequence[CommitStep], check: Callable[[], None]
    ) -> None:
        """Do all of the prepared steps or none.

        Args:
            check: Raises if the context must not be changed; called at the last moment.
        """
        ...

    def open_reader(self, context_id: str) -> ContextReader:
        """Look into a context; what is overdue is not there."""
        ...

    def delete_path(self, context_id: str, key: str) -> bool:
        """Delete a file, or a folder with all that is in it; False if there is none."""
        ...

    def contexts_to_clean(self) -> Iterable[str]:
        """The contexts that `tidy` may have work in."""
        ...

    def clean_up(self, context_id: str) -> None:
        """Delete what is overdue, or left over."""
        ...

    def recover(self, known: set[str]) -> None:
        """Carry out or undo what a killed runtime has left half done, given the contexts there are."""
        ...

    def tree(self, context_id: str) -> ContextTree:
        """Return the directories that a mount shows.

        Raises:
            InvalidRequestError: There are none on this machine.
        """
        ...
