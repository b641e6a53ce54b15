"""Which paths below a synchronised one a policy's white lists select."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_Pattern = re.Pattern[str]


class PathFilter:
    """White lists of paths.

    None at all, or one without a path, select everything.

    A path is selected with all that is below it, except for exclusions, which are relative to it. A regular expression
    must match a whole path, relative (with or without a leading slash) or absolute.
    """

    def __init__(self, white_lists: Sequence[Mapping[str, Any]], top: str) -> None:
        self._lists = [_WhiteListFilter(item, top) for item in white_lists]

    def __contains__(self, path: str) -> bool:
        return not self._lists or any(path in white for white in self._lists)

    def may_contain_match(self, directory: str) -> bool:
        """Return whether something below a directory may be selected.

        It may be wrong only by saying yes.
        """
        return not self._lists or any(white.may_contain_match(directory) for white in self._lists)


class _WhiteListFilter:
    def __init__(self, item: Mapping[str, Any], top: str) -> None:
        self._top = top.rstrip("/")
        path = str(item.get("path") or "")
        self._path = path.strip("/")
        self._expression = re.compile(path) if item.get("isPathRegex") and path else None
        excluded = [str(entry) for entry in item.get("excludePaths") or ()]
        self._excluded: list[str | _Pattern] = [
            re.compile(entry) if item.get("isExcludeRegex") else entry.strip("/") for entry in excluded if entry
        ]

    def __contains__(self, path: str) -> bool:
        bases = list(self._matching_prefixes(path))
        return bool(bases) and not any(self._is_excluded(_below(base, path)) for base in bases)

    def may_contain_match(self, directory: str) -> bool:
        if self._expression:
            # below a directory that every known base excludes, nothing can match any more
            return directory in self or not any(self._matching_prefixes(directory))
        return directory in self or _is_below(self._path, directory)

    def _matching_prefixes(self, path: str) -> Iterator[str]:
        """Yield the prefixes of `path` that this list names.

        "" is the synchronised path itself.
        """
        if self._expression:
            for base in ("", *_prefixes(path)):
                if any(map(self._expression.fullmatch, (base, f"/{base}", f"{self._top}/{base}"))):
                    yield base
        elif _is_below(path, self._path):
            yield self._path

    def _is_excluded(self, path: str) -> bool:
        return any(
            any(map(entry.fullmatch, _path_spellings(path)))
            if isinstance(entry, re.Pattern)
            else _is_below(path, entry)
            for entry in self._excluded
            if path
        )


def _is_below(path: str, top: str) -> bool:
    return not top or path == top or path.startswith(top + "/")


def _below(base: str, path: str) -> str:
    return path[len(base) :].lstrip("/")


def _prefixes(path: str) -> Iterator[str]:
    end = path.find("/")
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)
    if path:
        yield path


def _path_spellings(path: str) -> Iterator[str]:
    for prefix in _prefixes(path):
        yield prefix
        yield "/" + prefix
