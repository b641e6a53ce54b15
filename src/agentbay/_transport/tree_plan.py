"""Compare directory trees and plan their transfer."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

KIND_FILE, KIND_DIRECTORY, KIND_LINK = "f", "d", "l"
KIND_UNREADABLE = "u"  # a directory that may not be read
_KINDS = frozenset((KIND_FILE, KIND_DIRECTORY, KIND_LINK, KIND_UNREADABLE))
TEMPORARY_PREFIX = ".agentbay-"  # begins the names of files that are still incomplete
# What this package makes; other names with that prefix belong to users.
_TEMPORARY_NAME = re.compile(r"\.agentbay-[0-9a-f]{16,}([.-][0-9a-z]+)?")
_MAX_LINK_STEPS = 4096  # path components; a loop of links has no end
_BATCH_BYTES, _BATCH_FILES = 8 << 20, 2000  # of one archive, so that an interruption loses little
_MTIME_TOLERANCE_NS = 2000  # nanoseconds; archives store times as floating-point seconds


class TreeEntry(NamedTuple):
    """An entry of a directory tree.

    Attributes:
        kind: "f", "d" or "l", for a file, a directory or a symbolic link; "u" for a directory that may not be read.
            Anything else, such as a FIFO, has another letter.
        size: Bytes, 0 if it is no file.
        mtime_ns: Time of modification in nanoseconds.
        mode: Permission bits.
        link_target: Target of a symbolic link.
        digest: SHA-256 in hexadecimal, or "" if it was not asked for.
    """

    kind: str
    size: int = 0
    mtime_ns: int = 0
    mode: int = 0
    link_target: str = ""
    digest: str = ""


Tree = dict[str, TreeEntry]


class TreeScan:
    """The entries of a directory, and what was left out of them.

    Attributes:
        entries: What is to be compared, by path.
        left_out: Temporary files of transfers, and what is neither file, directory nor link.
        unreadable: Directories whose entries are not known.
        protected: Directories that hold something that is not in `entries`, so they must stay.
    """

    def __init__(self, ignored: Callable[[str, bool], bool] | None = None) -> None:
        self.entries: Tree = {}
        self.left_out: set[str] = set()
        self.unreadable: set[str] = set()
        self.protected: set[str] = set()
        self._ignored = ignored

    def add(self, path: str, entry: TreeEntry) -> bool:
        """Add an entry below known parents, and return whether it is transferred."""
        if self._ignored is not None and self._ignored(path, entry.kind in (KIND_DIRECTORY, KIND_UNREADABLE)):
            self.protected.update(iter_parents(path))
            return False
        if entry.kind not in _KINDS or _TEMPORARY_NAME.fullmatch(path.rpartition("/")[2]):
            self.left_out.add(path)
            self.protected.update(iter_parents(path))
            return False
        if entry.kind == KIND_UNREADABLE:
            self.unreadable.add(path)
            self.protected.update([path, *iter_parents(path)])
            entry = entry._replace(kind=KIND_DIRECTORY)
        self.entries[path] = entry
        return True


class TransferPlan(NamedTuple):
    """What a transfer has to do. The same difference always gives the same plan.

    Attributes:
        copied: Entries to copy.
        replaced: Entries to remove before, since another kind of entry takes their place; children come first.
        extraneous: Entries to remove afterwards, since the source does not have them; children come first.
        skipped: Entries that cannot be copied, since that would remove something.
        unchanged: How many entries are equal already.
        batches: The entries to copy, in groups that travel together.
        bytes: Bytes of the files to copy.
    """

    copied: list[str]
    replaced: list[str]
    extraneous: list[str]
    skipped: list[str]
    unchanged: int
    batches: list[list[str]]
    bytes: int


def is_unchanged(one: TreeEntry, other: TreeEntry | None) -> bool:
    """Whether an entry need not be copied."""
    if other is None or one.kind != other.kind:
        return False
    if one.kind == KIND_LINK:
        return one.link_target == other.link_target
    if one.kind == KIND_DIRECTORY:
        return one.mode | 0o700 == other.mode | 0o700  # copies of directories can always be written to
    if one.size != other.size or one.mode != other.mode:
        return False
    if one.digest or other.digest:
        return one.digest == other.digest
    return abs(one.mtime_ns - other.mtime_ns) <= _MTIME_TOLERANCE_NS


def plan_transfer(source: TreeScan, target: TreeScan, *, delete: bool) -> TransferPlan:
    """Plan how `target` becomes equal to `source`.

    Without `delete` nothing is removed: an entry that is of another kind in `target` is skipped. With it, protected
    directories still stay.
    """
    other_kind = {path for path in source.entries if path in target.entries and _differs_in_kind(path, source, target)}
    blocked = {path for path in other_kind if not delete or path in target.protected} | target.left_out
    skipped = _with_descendants(blocked, source.entries)
    wanted = {path: entry for path, entry in source.entries.items() if path not in skipped}
    copied = sorted(path for path, entry in wanted.items() if not is_unchanged(entry, target.entries.get(path)))
    replaced: set[str] = set()
    extraneous: set[str] = set()
    if delete:
        # renaming replaces a file or a link atomically, a directory has to go before
        conflicts = {path for path in other_kind - blocked if _involves_directory(path, source, target)}
        replaced = _with_descendants(conflicts, target.entries)
        # What the source could not list may exist there, so nothing below it counts as extraneous.
        unknown = _with_descendants(source.unreadable | source.left_out, target.entries)
        extraneous = set(target.entries) - set(source.entries) - replaced - unknown - target.protected
    size = sum(wanted[path].size for path in copied)
    batches = list(_batches(copied, wanted))
    # A path sorts after its parents.
    children_first = partial(sorted, reverse=True)
    return TransferPlan(
        copied,
        children_first(replaced),
        children_first(extraneous),
        sorted(skipped),
        len(wanted) - len(copied),
        batches,
        size,
    )


def _differs_in_kind(path: str, source: TreeScan, target: TreeScan) -> bool:
    return source.entries[path].kind != target.entries[path].kind


def _involves_directory(path: str, source: TreeScan, target: TreeScan) -> bool:
    return KIND_DIRECTORY in (source.entries[path].kind, target.entries[path].kind)


def _with_descendants(paths: set[str], tree: Iterable[str]) -> set[str]:
    """Return the paths of a tree that are among `paths` or below them."""
    return {path for path in tree if path in paths or any(above in paths for above in iter_parents(path))}


def topmost(paths: Iterable[str]) -> list[str]:
    """Return the paths that are not below another one of them, sorted."""
    known = set(paths)
    return sorted(path for path in known if not any(above in known for above in iter_parents(path)))


def iter_parents(path: str) -> Iterator[str]:
    """Yield the directories above a path, the nearest first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def leads_outside(path: str, target: str, read_link: Callable[[str], str | None]) -> bool:
    """Return whether a symbolic link leaves the directory, directly or through other links.

    Args:
        path: The link.
        target: Where it points.
        read_link: Returns the target of a link by its path in the directory, or None if the path is no link.
    """
    where, pending = path.split("/")[:-1], deque([target])
    for _ in range(_MAX_LINK_STEPS):
        if not pending:
            return False
        first, _, rest = pending.popleft().partition("/")
        if rest:
            pending.appendleft(rest)
        if not first and not rest:
            continue
        if not first:
            return True  # an absolute path
        if first == "..":
            if not where:
                return True
            where.pop()
        elif first != ".":
            # A link on the way is replaced by its target, as the kernel does, so that a chain of links is followed.
            step = read_link("/".join([*where, first]))
            if step is None:
                where.append(first)
            else:
                pending.appendleft(step)
    return True


def _batches(paths: Iterable[str], tree: Tree) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for path in paths:
        if batch and (size + tree[path].size > _BATCH_BYTES or len(batch) >= _BATCH_FILES):
            yield batch
            batch, size = [], 0
        batch.append(path)
        size += tree[path].size
    if batch:
        yield batch
