"""The kernel's watches on a tree, so that nobody needs to look at it while nothing changes."""

from __future__ import annotations

import os

from agentbay.local.sandbox.shared.syscalls import add_watch

# inotify(7): modify, attributes, closed after writing, moved from and to, created, deleted, itself deleted and moved
_CHANGE_EVENTS = 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x800
_PATH_CHANGE_EVENTS = (
    0x4 | 0x400 | 0x800
)  # attributes, itself deleted and moved: the path may lead elsewhere from now on
_ONLYDIR_NOFOLLOW = 0x01000000 | 0x02000000


class InotifyWatches:
    """Watches of the directories of a tree.

    To lose nothing, each is added before the directory is read. To add one again is cheap, and changes nothing.

    Attributes:
        whole: Whether nothing can change unseen.
    """

    def __init__(self, inotify: int | None, top: str) -> None:
        self._inotify = inotify
        path = os.path.normpath(top)
        # a link on the way may lead elsewhere without a word
        self.is_complete = inotify is not None and os.path.realpath(top) == path
        above = path
        while above != (above := os.path.dirname(above)):
            self._watch_ancestor(above, _PATH_CHANGE_EVENTS)
        self._watch_ancestor(path, _CHANGE_EVENTS)

    def add(self, directory: str) -> None:
        """Watch a directory of the tree."""
        try:
            self._try(directory, _CHANGE_EVENTS)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            pass  # it is gone since, or cannot be read; the one above tells of it when that changes
        except OSError:  # the limit, most likely
            self.is_complete = False

    def _watch_ancestor(self, directory: str, mask: int) -> None:
        try:
            self._try(directory, mask)
        except OSError:
            self.is_complete = False

    def _try(self, directory: str, mask: int) -> None:
        if self._inotify is not None and self.is_complete:
            add_watch(self._inotify, directory, mask | _ONLYDIR_NOFOLLOW)
