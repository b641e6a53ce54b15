"""The interface of the storage backends: a disk or a bucket.

A change of many files is one commit, a list of steps: staged files, directories, links, deletions. A commit is atomic
and durable: all of its steps are applied or none, and when `ContentBackend.commit` returns, they are.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, Protocol

from agentbay.local.contexts import keys
from agentbay.local.contexts.directory_tree import ContextTree
from agentbay.local.contexts.entry import Entry, Owner
from agentbay.local.contexts.errors import path_conflict
from agentbay.local.contexts.name_registry import NameRegistry
from agentbay.local.sandbox.service.manager import free_space
from agentbay.local.sandbox.shared.fd_io import write_all

# One of ["put", key, staged, expires, archive], ["dir", key, mode], ["link", key, target], ["delete", key].
CommitStep = list[Any]


_CHECK_BYTES = 64 << 20  # that are written between two looks at the free space


class StagingDirectory:
    """A directory on this disk for files that wait to be committed."""

    def __init__(self, parent: Path, owner: Owner) -> None:
        self.directory, self._owner, self._count = parent / secrets.token_hex(8), owner, 0
        self._prefix = f"{self.directory}/"  # a path is joined for each file, which pathlib does slowly
        self._unchecked_bytes = _CHECK_BYTES
        self.directory.mkdir()

    def create_file(self, mode: int = 0o644) -> tuple[str, int]:
        """Create a file, and return its name and a writable descriptor.

        The caller closes the descriptor.
        """
        self._count += 1
        name = str(self._count)
        fd = os.open(self.path(name), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.fchown(fd, *self._owner)
        os.fchmod(fd, (mode & 0o777) | 0o600)  # no later download could read it without its owner's permission
        return name, fd

    def check_room(self, size: int) -> None:
        """Refuse what is larger than the free disk space.

        Otherwise hours might be spent on its holes by an archive or a bucket, which have none.

        Raises:
            OSError: It is.
        """
        # `write` looks often enough at what is smaller.
        if size > _CHECK_BYTES and size > free_space(self.directory)[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, fd: int, data: bytes) -> None:
        """Append to a file that was created here.

        Zeros become a hole: a session can make a file of terabytes that takes no space. `finish` must follow.

        Raises:
            OSError: The machine's reserve of disk space would be used.
        """
        if not data.strip(b"\0"):
            os.lseek(fd, len(data), os.SEEK_CUR)
            return
        self._unchecked_bytes += len(data)
        if self._unchecked_bytes >= _CHECK_BYTES:
            self._unchecked_bytes = 0
            free, reserve = free_space(self.directory)
            if free < reserve:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_all(fd, data)

    @staticmethod
    def write_hole(fd: int, size: int) -> None:
        """Append a hole, like `write`."""
        os.lseek(fd, size, os.SEEK_CUR)

    @staticmethod
    def finish(fd: int) -> None:
        """Give a file its size, which ends in a hole perhaps."""
        os.ftruncate(fd, os.lseek(fd, 0, os.SEEK_CUR))

    def path(self, name: str) -> str:
        return f"{self._prefix}{name}"


class Snapshot(Protocol):
    """All that was below a key at one moment, whatever is committed later.

    Attributes:
        entries: Each directory comes before its contents.
        unreadable: Why an entry could not be read, by its path.
    """

    entries: list[Entry]
    unreadable: dict[str, str]

    def open(self, entry: Entry) -> IO[bytes]:
        """Open a file for seekable reading."""
        ...

    def iterate_files(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, IO[bytes]]]:
        """Open files one after the other for sequential reading.

        Each file is closed when the next one is yielded. A file that cannot be opened is added to `unreadable`.
        """
        ...


class ContextReader(Protocol):
    """Read access to a context while `ContextStore.open_reader` keeps commits out."""

    def open(self, key: str) -> IO[bytes]:
        """Open a file that stays readable whatever is committed later.

        Raises:
            FileNotFoundError: There is none.
        """
        ...

    def children(self, key: str) -> list[Entry]:
        """List a directory, sorted by name. A missing directory is empty."""
        ...

    def snapshot(self, key: str, staging: StagingDirectory, only: str = "") -> Snapshot:
        """Take a snapshot of what is below a key.

        Args:
            staging: The snapshot lives as long as this directory.
            only: A path below the key, to take nothing else.
        """
        ...

    def archive_keys(self, top: str) -> list[str]:
        """Return the keys below `top` that upload mode Archive has made."""
        ...


class ContentBackend(Protocol):
    """Stores the contents of contexts.

    The store serialises the changes of each context.
    """

    @property
    def name_registry(self) -> NameRegistry | None:
        """Return the registry of names, if several runtimes share these contents."""
        ...

    def create(self, context_id: str) -> None:
        """Make an empty context."""
        ...

    def delete(self, context_id: str) -> None:
        """Delete a context and its contents. Idempotent."""
        ...

    def clear(self, context_id: str) -> None:
        """Delete all files of a context and begin another epoch."""
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
        """Do the slow part of a commit, which shows nowhere yet."""
        ...

    def commit(
        self, context_id: str, staging: StagingDirectory, steps: Sequence[CommitStep], check: Callable[[], None]
    ) -> None:
        """Apply all of the prepared steps atomically.

        Args:
            check: Called at the last moment. Raises if the context must not be changed.
        """
        ...

    def open_reader(self, context_id: str) -> ContextReader:
        """Open a context for reading, without its expired files."""
        ...

    def delete_path(self, context_id: str, key: str) -> bool:
        """Delete a file or a whole directory, and return whether it existed."""
        ...

    def contexts_to_clean(self) -> Iterable[str]:
        """Return the ids of the contexts that `clean_up` may have work in."""
        ...

    def clean_up(self, context_id: str) -> None:
        """Delete expired files and unreferenced content."""
        ...

    def recover(self, known: set[str]) -> None:
        """Finish or roll back what a killed runtime left half done.

        Args:
            known: The ids of all contexts.
        """
        ...

    def tree(self, context_id: str) -> ContextTree:
        """Return the directory tree that mounts show.

        Raises:
            InvalidRequestError: The backend has none.
        """
        ...


class Replaceable(Protocol):
    """The contents of a context, as `check_replacements` asks for them."""

    def find_replaced(self, written: Iterable[str]) -> Iterable[Entry]:
        """Yield what writing files at keys would remove: directories there, and files above.

        The entries have whole keys as paths. A key that ends with a slash is a directory to be made.
        """
        ...

    def children(self, key: str) -> list[Entry]: ...


def check_replacements(contents: Replaceable, steps: Sequence[CommitStep]) -> None:
    """Raise ConflictError if a commit would remove files that it does not delete.

    A session that turns a directory into a file deletes the files it knew of, but another session may have added some.
    """
    deleted = {step[1] for step in steps if step[0] == "delete"}
    written = [step[1] for step in steps if step[0] in ("put", "link")]
    directories = [step[1] + "/" for step in steps if step[0] == "dir" and step[1] != "/"]
    for replaced in contents.find_replaced(written + directories):
        for lost in _files_at(contents, replaced.path, replaced.kind):
            if lost not in deleted:
                raise path_conflict(lost)


def _files_at(contents: Replaceable, key: str, kind: str) -> Iterator[str]:
    if kind != "dir":
        yield key
        return
    for entry in contents.children(key):
        yield from _files_at(contents, keys.join(key, entry.path), entry.kind)
