"""The files that the client sent for a build."""

from __future__ import annotations

import fnmatch
import hashlib
import posixpath
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, Protocol

import attrs

from agentbay.local.images.archives import FilePart
from agentbay.local.images.errors import DamagedImage, LimitExceeded
from agentbay.local.images.layer_source import LayerSource
from agentbay.local.images.layer_writer import WHITEOUT_PREFIX, EntrySource, split_name
from agentbay.local.images.merged_view import MAX_LINKS, MAX_STEPS
from agentbay.local.images.tar_reader import TarEntry, TarReader

_MAX_ENTRIES, _MAX_NAME_CHARACTERS = 500_000, 256 << 20  # of a context
_PIECE_BYTES = 1 << 18
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257


@attrs.frozen
class SourceFile:
    """A file, directory or link that can be copied.

    Attributes:
        entry: With its name where it is.
        offset: Where its content begins in the archive of a context.
    """

    entry: TarEntry
    offset: int = 0


class FileSource(Protocol):
    """Files from which COPY takes some: of the context, a stage or an image."""

    def find(self, pattern: str) -> list[str]:
        """Return the paths that a source of COPY means, in order."""
        ...

    def missing(self, pattern: str) -> str:
        """Return why a pattern means no file."""
        ...

    def kind(self, path: str) -> str:
        """Return "file", "directory" or another kind, links resolved that lead somewhere."""
        ...

    def below(self, path: str) -> Iterator[tuple[str, SourceFile]]:
        """Yield what is in a directory, at any depth, by paths relative to it."""
        ...

    def file(self, path: str) -> SourceFile:
        """Return one file, links resolved that lead somewhere."""
        ...

    def is_archive(self, path: str) -> bool:
        """Return whether a file is a tar archive that ADD unpacks."""
        ...

    def open(self, found: SourceFile) -> IO[bytes]:
        """Open a file."""
        ...


class BuildContext:
    """The files that a client sent for a build.

    Args:
        archive: A tar archive, not compressed.

    Raises:
        ImageError: It is damaged, or holds too much.
    """

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._files: dict[str, SourceFile] = {}
        self._name_characters = 0
        with open(archive, "rb") as file:
            reader = TarReader(file.read)
            for entry in reader:
                path = "/".join(split_name(entry.name))
                self._add(path, SourceFile(entry, file.tell()))
                file.seek(entry.size, 1)
                reader.skip()

    def _add(self, path: str, found: SourceFile) -> None:
        if len(self._files) >= _MAX_ENTRIES:
            raise LimitExceeded(f"The context has more than {_MAX_ENTRIES:,} files: leave some out by .dockerignore.")
        self._name_characters += len(path) + len(found.entry.link)
        if self._name_characters > _MAX_NAME_CHARACTERS:
            raise LimitExceeded("The context's names are too long, all together: leave some out by .dockerignore.")
        if posixpath.basename(path).startswith(WHITEOUT_PREFIX):
            raise DamagedImage(f"The context has {path!r:.200}, which is named like a note of layers: leave it out.")
        if found.entry.kind == "hardlink":
            target = self._files.get("/".join(split_name(found.entry.link)))
            if target is None:
                raise DamagedImage(f"The context has a link to {found.entry.link!r:.200}, which it does not hold.")
            found = SourceFile(target.entry, target.offset)
        if path and found.entry.kind in ("file", "directory", "symlink"):
            self._files[path] = found

    def find(self, pattern: str) -> list[str]:
        """Return the paths that a source of COPY stands for, sorted.

        The source "" is the whole context. It may have shell wildcards.
        """
        path = posixpath.normpath(f"/{pattern}").strip("/")
        if not path or path in self._files or self._real(path) is not None:
            return [path]
        parts = path.split("/")
        return sorted(known for known in self._files if _matches(known.split("/"), parts))

    def missing(self, pattern: str) -> str:
        """Return why a pattern means no file."""
        return f"the context has no file {pattern!r:.200}; perhaps .dockerignore leaves it out, or it is outside"

    def kind(self, path: str) -> str:
        """Return "file" or "directory", links resolved, or "symlink" for one that leads nowhere.

        The path "" is the whole context.
        """
        return self.file(path).entry.kind if self._real(path) != "" else "directory"

    def below(self, path: str) -> Iterator[tuple[str, SourceFile]]:
        """Yield what is in a directory, at any depth, by paths relative to it."""
        start = f"{real}/" if (real := self._real(path)) else ""
        for known in sorted(self._files):
            if known.startswith(start):
                yield known.removeprefix(start), self._files[known]

    def file(self, path: str) -> SourceFile:
        """Return one file, links resolved."""
        return self._files[self._real(path) or path]

    def is_archive(self, path: str) -> bool:
        """Return whether a file is a tar archive, compressed or not, which ADD unpacks."""
        found = self._files.get(self._real(path) or path)
        if found is None or found.entry.kind != "file":
            return False
        with self.open(found) as file, suppress(DamagedImage):
            start = LayerSource(file, lambda _: None).read(_TAR_MAGIC_AT + len(_TAR_MAGIC))
            return start[_TAR_MAGIC_AT:] == _TAR_MAGIC
        return False

    def open(self, found: SourceFile) -> IO[bytes]:
        """Open a file."""
        return FilePart(self._archive, found.offset, found.entry.size)  # type: ignore[return-value]

    def _real(self, path: str) -> str | None:
        """Return a path with its links resolved inside the context.

        It is None if the path leads nowhere.
        """
        pending, place, links_left = path.split("/")[::-1], list[str](), MAX_LINKS
        for _ in range(MAX_STEPS):
            if not pending:
                break
            part = pending.pop()
            if part == "..":  # at the root it stays there
                place = place[:-1]
                continue
            place.append(part)
            found = self._files.get("/".join(place))
            if found is not None and found.entry.kind == "symlink" and links_left:
                links_left -= 1
                place = [] if found.entry.link.startswith("/") else place[:-1]
                pending += [below for below in reversed(found.entry.link.split("/")) if below not in ("", ".")]
        if pending:
            return None
        real = "/".join(place)
        return real if not real or real in self._files else None


@attrs.frozen
class Copied:
    """One thing that a step puts into an image.

    Attributes:
        entry: With its name in the image.
        found: What is copied.
        content: The content itself, if it is no file of the source.
    """

    entry: TarEntry
    found: SourceFile | None = None
    content: bytes | None = None


class CopiedFiles:
    """What a step puts into an image, as entries of a layer."""

    def __init__(self, source: FileSource, copied: Iterable[Copied]) -> None:
        self._source, self._copied = source, list(islice(copied, _MAX_ENTRIES + 1))
        if len(self._copied) > _MAX_ENTRIES:  # its sources may name the same files again and again
            raise LimitExceeded(f"It copies more than {_MAX_ENTRIES:,} files.")
        self._current: Copied | None = None

    def __iter__(self) -> Iterator[TarEntry]:
        for copied in self._copied:
            self._current = copied
            yield copied.entry

    def pieces(self) -> Iterator[bytes]:
        """Read the content of the current entry."""
        current = self._current
        if current is None or current.entry.kind != "file":
            return
        if current.content is not None:
            yield current.content
            return
        assert current.found is not None
        with self._source.open(current.found) as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece

    def digest(self) -> str:
        """Return a digest of names, modes and contents."""
        return _digest(self)


class UnpackedArchive:
    """The content of an archive, as entries of a layer below a directory."""

    def __init__(self, source: FileSource, path: str, directory: str) -> None:
        self._source, self._found, self._directory = source, source.file(path), directory
        self._reader: TarReader | None = None

    def __iter__(self) -> Iterator[TarEntry]:
        with self._source.open(self._found) as file:
            self._reader = TarReader(LayerSource(file, lambda _: None).read)
            for entry in self._reader:
                link = self._place(entry.link) if entry.kind == "hardlink" else entry.link
                yield entry._replace(name=self._place(entry.name), link=link)

    def pieces(self) -> Iterator[bytes]:
        """Read the content of the current entry."""
        assert self._reader is not None
        return self._reader.pieces()

    def digest(self) -> str:
        """Return a digest of names, modes and contents."""
        return _digest(self)

    def _place(self, name: str) -> str:
        return "/".join((self._directory, *split_name(name)))


def _digest(entries: EntrySource) -> str:
    total = hashlib.sha256()
    for entry in entries:
        content = hashlib.sha256()
        for piece in entries.pieces():
            content.update(piece)
        fields = (entry.name, entry.kind, entry.mode & 0o777, entry.link, content.hexdigest())
        total.update(repr(fields).encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def _matches(path: list[str], pattern: list[str]) -> bool:
    return len(path) == len(pattern) and all(map(fnmatch.fnmatchcase, path, pattern))
