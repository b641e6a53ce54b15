"""inotify watches on a directory tree, instead of walking it again and again."""

from __future__ import annotations

import os

from agentbay.local.sandbox.shared.syscalls import add_watch

# inotify(7): modify, attributes, closed after writing, moved from and to, created, deleted, itself deleted and moved
_CHANGE_EVENTS = 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800
# attributes, itself deleted and moved: the path may lead elsewhere from now on
_PATH_CHANGE_EVENTS = 0x4 | 0x400 | 0x800
_ONLYDIR_NOFOLLOW = 0x01000000 | 0x02000000


class InotifyWatches:
    """Adds a watch on each directory of a tree.

    Each must be added before its directory is read, or a change in between is lost (a race). Adding one again is
    idempotent.

    Attributes:
        is_complete: Whether every change below the tree will be noticed.
    """

    def __init__(self, inotify: int | None, top: str) -> None:
        self._inotify = inotify
        path = os.path.normpath(top)
        # a link in the path may change unnoticed
        self.is_complete = inotify is not None and os.path.realpath(top) == path
        parent = path
        while parent != (parent := os.path.dirname(parent)):
            self._add_or_mark_incomplete(parent, _PATH_CHANGE_EVENTS)
        self._add_or_mark_incomplete(path, _CHANGE_EVENTS)

    def add(self, directory: str) -> None:
        """Watch a directory of the tree."""
        try:
            self._add(directory, _CHANGE_EVENTS)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            pass  # removed meanwhile, or unreadable; the watch on its parent notices when that changes
        except OSError:  # the limit of watches, most likely
            self.is_complete = False

    def _add_or_mark_incomplete(self, directory: str, mask: int) -> None:
        try:
            self._add(directory, mask)
        except OSError:
            self.is_complete = False

    def _add(self, directory: str, mask: int) -> None:
        if self._inotify is not None and self.is_complete:
            add_watch(self._inotify, directory, mask | _ONLYDIR_NOFOLLOW)
