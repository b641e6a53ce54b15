"""What a session and a context had in common when they were last synchronised.

It is what tells a file that the session has changed from one that merely is not the newest: only changes go up. So of
two sessions on one context neither undoes what the other has done to files it has not touched itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from agentbay.local.contexts import keys

FileSignature = list[int]  # see `trees.facts`


@dataclass
class Baseline:
    """Paths are relative to the synchronised one.

    Attributes:
        epoch: How often the context had been cleared.
        files: Files that the context keeps one by one.
        packed: Those that it keeps in its archive.
        extracted: Those that came out of an archive which is itself a file of the context.
    """

    epoch: int = 0
    files: dict[str, FileSignature] = field(default_factory=dict)
    packed: dict[str, FileSignature] = field(default_factory=dict)
    extracted: dict[str, FileSignature] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    directories: dict[str, int] = field(default_factory=dict)

    def individual_files(self) -> dict[str, FileSignature]:
        """The files that need not go up one by one as long as they are as they were."""
        return {**self.extracted, **self.files}

    def paths(self) -> Iterator[str]:
        """All paths that the context has."""
        for part in (self.files, self.packed, self.links, self.directories):
            yield from part

    def remove_paths(self, paths: Iterable[str]) -> None:
        """Forget paths that are gone."""
        for path in paths:
            for part in (self.files, self.packed, self.extracted, self.links, self.directories):
                part.pop(path, None)


def is_within_any(path: str, tops: Iterable[str]) -> bool:
    """Whether a path is one of `tops` or below one."""
    return any(keys.relative_to("/" + path, "/" + top) is not None for top in tops)
