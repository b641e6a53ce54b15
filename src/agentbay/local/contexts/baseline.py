"""The common state of a session and a context after their last synchronisation.

The baseline tells a file that the session has changed from one that is only older than the context's: only changes are
uploaded. So of two sessions on one context, neither undoes the changes of the other to files that it has not touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agentbay._lazy_attrs import define, field
from agentbay.local.contexts import keys

FileSignature = list[int]  # see `tree_operations.file_fingerprint`


@define(slots=False)
class Baseline:
    """The last common state. Paths are relative to the synchronised path.

    Attributes:
        epoch: How often the context had been cleared.
        files: Files that the context keeps as single files.
        packed: Files that it keeps in the archive of upload mode Archive.
        extracted: Files extracted from archives that are files of the context themselves.
    """

    epoch: int = 0
    files: dict[str, FileSignature] = field(factory=dict)
    packed: dict[str, FileSignature] = field(factory=dict)
    extracted: dict[str, FileSignature] = field(factory=dict)
    links: dict[str, str] = field(factory=dict)
    directories: dict[str, int] = field(factory=dict)

    def individual_files(self) -> dict[str, FileSignature]:
        """Return the files that need no upload as single files while unchanged."""
        return {**self.extracted, **self.files}

    def paths(self) -> Iterator[str]:
        """Yield all paths that the context has."""
        for part in (self.files, self.packed, self.links, self.directories):
            yield from part

    def remove_paths(self, paths: Iterable[str]) -> None:
        """Remove deleted paths from all parts."""
        for path in paths:
            for part in (self.files, self.packed, self.extracted, self.links, self.directories):
                part.pop(path, None)


def is_within_any(path: str, tops: Iterable[str]) -> bool:
    """Whether a path is one of `tops` or below one."""
    return any(keys.relative_to("/" + path, "/" + top) is not None for top in tops)
