"""The files of a stage or of an image, from which COPY takes some."""

from __future__ import annotations

import fnmatch
import os
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO

from agentbay.local.builds.context_files import SourceFile
from agentbay.local.images.errors import DamagedImage
from agentbay.local.images.merged_view import Found, MergedView, Parts
from agentbay.local.images.tar_reader import TarEntry
from agentbay.local.sandbox.shared import dirfd


class ImageFiles:
    """The files of a stack of layers.

    Args:
        layers: Their directories, the lowest first.
        name: What has the files, for messages.
    """

    def __init__(self, layers: Sequence[str], name: str) -> None:
        self._view, self._name = MergedView(layers[::-1]), name

    def close(self) -> None:
        """Close the layers."""
        self._view.close()

    def find(self, pattern: str) -> list[str]:
        """Return the paths that a source of COPY means, in order.

        It may have the wildcards of shells.
        """
        path = posixpath.normpath(f"/{pattern}").strip("/")
        if not path or self._real(path) is not None:
            return [path]
        found = [""]
        for part in path.split("/"):
            found = [
                posixpath.join(above, name)
                for above in found
                for name in sorted(self._names(above))
                if fnmatch.fnmatchcase(name, part)
            ]
        return [match for match in found if self._real(match) is not None]

    def missing(self, pattern: str) -> str:
        """Return why a pattern means no file."""
        return f"{self._name:.200} has no file {pattern!r:.200}"

    def kind(self, path: str) -> str:
        """Return "file", "directory" or "other", links resolved, or "symlink" for one that leads nowhere."""
        return self._known(path)[1].kind

    def below(self, path: str) -> Iterator[tuple[str, SourceFile]]:
        """Yield what is in a directory, at any depth, by paths relative to it."""
        pending = [("", self._known(path)[0])]
        while pending:
            above, place = pending.pop()
            for name, found in sorted(self._view.list_directory(place).items()):
                relative, inner = posixpath.join(above, name), (*place, name)
                if found.kind != "other":  # a FIFO or a socket
                    yield relative, _describe(inner, found)
                if found.kind == "directory":
                    pending.append((relative, inner))

    def file(self, path: str) -> SourceFile:
        """Return one file, links resolved."""
        return _describe(*self._known(path))

    def is_archive(self, path: str) -> bool:
        """Return False: only files of the context are unpacked."""
        return False

    def open(self, found: SourceFile) -> IO[bytes]:
        """Open a file."""
        place = tuple(found.entry.name.split("/"))
        with self._view.open_lower_parent(place) as directory:
            return open(os.open(place[-1], dirfd.FILE_OPEN_FLAGS, dir_fd=directory), "rb")

    def _names(self, path: str) -> list[str]:
        known = self._real(path)
        return list(self._view.list_directory(known[0])) if known and known[1].kind == "directory" else []

    def _known(self, path: str) -> tuple[Parts, Found]:
        known = self._real(path)
        assert known is not None  # `find` has found it
        return known

    def _real(self, path: str) -> tuple[Parts, Found] | None:
        with suppress(DamagedImage):  # links in a circle
            parts = tuple(filter(None, path.split("/")))
            for place in (self._view.real_directory(parts), (*self._view.real_directory(parts[:-1]), *parts[-1:])):
                if (found := self._view.find(place)) is not None:
                    return place, found
        return None


def _describe(place: Parts, found: Found) -> SourceFile:
    return SourceFile(TarEntry("/".join(place), found.kind, found.mode, 0, found.mtime, found.target))
