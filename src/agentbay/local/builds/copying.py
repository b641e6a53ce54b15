"""What COPY and ADD put where."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Iterator, Sequence

from agentbay.local.builds.context_files import Copied, CopiedFiles, FileSource, SourceFile, UnpackedArchive
from agentbay.local.builds.dockerfile import Instruction
from agentbay.local.images.merged_view import MergedView
from agentbay.local.images.tar_reader import TarEntry

_NEW_FILE_MODE = 0o644


class CopyStep:
    """One COPY or ADD.

    Args:
        words: Its sources and its destination, with their variables replaced.
        contents: The here-documents among the sources, by their word.
        origin: What has the sources.
        directory: Where relative destinations begin.
        view: The image so far.

    Attributes:
        files: What is copied.
        archives: What ADD unpacks.

    Raises:
        BuildFailed: A source is not there, or several are to become one file.
        LimitExceeded: It copies too many files.
    """

    def __init__(
        self,
        instruction: Instruction,
        words: Sequence[str],
        contents: dict[str, str],
        origin: FileSource,
        directory: str,
        view: MergedView,
    ) -> None:
        self._instruction, self._origin, self._contents = instruction, origin, contents
        *sources, destination = words
        self._destination = posixpath.normpath(posixpath.join("/", directory, destination)).strip("/")
        found = [(source, path) for source in sources for path in self._find(source)]
        self._is_directory = destination.endswith(("/", "/.")) or destination == "." or self._exists_as_directory(view)
        if not self._is_directory and len(found) > 1:
            raise instruction.error(f"several files go to {destination:.200}, which must be a directory: end it with /")
        packed = [path for source, path in found if self._is_unpacked(source, path)]
        self.archives = [UnpackedArchive(origin, path, self._destination) for path in packed]
        copied = (
            item
            for source, path in found
            if not self._is_unpacked(source, path)
            for item in self._copied(source, path, view)
        )
        self.files = CopiedFiles(origin, copied)

    def digest(self) -> str:
        """Return a digest of all that it puts into the image."""
        return "".join([self.files.digest(), *(archive.digest() for archive in self.archives)])

    def _find(self, source: str) -> list[str]:
        if source in self._contents:
            return [source]
        paths = self._origin.find(source)
        if not paths:
            raise self._instruction.error(self._origin.missing(source))
        return paths

    def _is_unpacked(self, source: str, path: str) -> bool:
        return self._instruction.name == "ADD" and source not in self._contents and self._origin.is_archive(path)

    def _exists_as_directory(self, view: MergedView) -> bool:
        found = view.find(view.real_directory(tuple(self._destination.split("/")))) if self._destination else None
        return not self._destination or (found is not None and found.kind == "directory")

    def _copied(self, source: str, path: str, view: MergedView) -> Iterator[Copied]:
        if source in self._contents:
            content = self._contents[source].encode("utf-8", "surrogateescape")
            name = next(heredoc.delimiter for heredoc in self._instruction.heredocs if heredoc.word == source)
            entry = TarEntry("", "file", self._mode(_NEW_FILE_MODE), len(content), time.time(), "")
            yield Copied(entry._replace(name=self._place(name)), content=content)
        elif self._origin.kind(path) == "directory":
            # Resolved, or a link in the image would be replaced by the directory.
            directory = "/".join(view.real_directory(tuple(filter(None, self._destination.split("/")))))
            if directory and not self._exists_as_directory(view):
                yield Copied(TarEntry(directory, "directory", self._mode(0o755), 0, time.time(), ""))
            for name, found in self._origin.below(path):
                yield self._as_named(found, posixpath.join(directory, name))
        else:
            yield self._as_named(self._origin.file(path), self._place(posixpath.basename(path)))

    def _as_named(self, found: SourceFile, name: str) -> Copied:
        entry = found.entry
        return Copied(entry._replace(name=name, mode=self._mode(entry.mode)), found)

    def _place(self, name: str) -> str:
        return posixpath.join(self._destination, name) if self._is_directory else self._destination

    def _mode(self, mode: int) -> int:
        given = self._instruction.flags.get("chmod")
        return int(given, 8) if given else mode
