"""What a session was told to run, and how it ended: the last of it, in memory, for whoever looks at the session's page.

Environments and contents of files are not in it; user names and passwords in URLs are taken out.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from agentbay._wire.tools import ASIDE

_MOST = 100  # entries
_LONGEST = 2000  # characters kept of a command, and of the end of each stream
_WIDEST = 4  # bytes of a character
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")


@dataclass(slots=True)
class Entry:
    """Something that runs, or ran.

    Attributes:
        kind: "shell", "background", "terminal" or a language.
        began: Seconds since the epoch.
        seconds: How long it took; None as long as it runs.
        exit_code: None for what has none, such as code.
        note: How it ended, if not by itself.
        changed: Grows with each change of any entry.
    """

    number: int
    kind: str
    text: str
    began: float
    changed: int
    seconds: float | None = None
    exit_code: int | None = None
    failed: bool = False
    note: str = ""
    stdout: str = ""
    stderr: str = ""

    def end(
        self, *, exit_code: int | None = None, failed: bool = False, note: str = "", stdout: bytes | str = b"",
        stderr: bytes | str = b"",
    ) -> None:  # fmt: skip
        """Note how it ended."""
        self.exit_code, self.failed, self.note = exit_code, failed or bool(exit_code), _masked(note)[:_LONGEST]
        self.stdout, self.stderr = _tail(stdout), _tail(stderr)


class Journal:
    """The last things that were run in one session."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=_MOST)
        self._numbers, self._changes = itertools.count(1), itertools.count(1)

    @contextmanager
    def record(self, kind: str, text: str) -> Iterator[Entry]:
        """Note that something runs, and when it has ended; how, `Entry.end` is told, or an error says."""
        entry = self._begin(kind, text)
        try:
            yield entry
        except BaseException as error:
            entry.end(failed=True, note=str(error) or "nobody waited for its end")
            raise
        finally:
            self._finish(entry)

    @contextmanager
    def record_shell(self, command: str) -> Iterator[Entry]:
        """Note a command; those by which a client does work of its own are left out, or told by what they start."""
        first = command.partition("\n")[0]
        if first == ASIDE:
            yield Entry(0, "", "", 0.0, 0)
            return
        own = first.startswith(ASIDE)
        with self.record(*(("background", _read_text(first[len(ASIDE) :])) if own else ("shell", command))) as entry:
            yield entry

    def follow(self, kind: str, text: str, exited: asyncio.Future[int]) -> None:
        """Note something that runs until a future has its exit code."""
        entry = self._begin(kind, text)

        def finish(_: object) -> None:
            if not exited.cancelled() and exited.exception() is None:
                entry.end(exit_code=exited.result())
            self._finish(entry)

        exited.add_done_callback(finish)

    def since(self, change: int) -> list[Entry]:
        """Return the entries that changed after `change`, the oldest first."""
        return [entry for entry in self._entries if entry.changed > change]

    def _begin(self, kind: str, text: str) -> Entry:
        entry = Entry(next(self._numbers), kind, _masked(text[:_LONGEST]), time.time(), next(self._changes))
        self._entries.append(entry)
        return entry

    def _finish(self, entry: Entry) -> None:
        entry.seconds = max(0.0, time.time() - entry.began)
        entry.changed = next(self._changes)


def _read_text(literal: str) -> str:
    try:
        return str(json.loads(literal))
    except (ValueError, RecursionError):
        return literal


def _tail(output: bytes | str) -> str:
    if isinstance(output, bytes):
        output = output[-_LONGEST * _WIDEST :].decode("utf-8", "replace")
    return _masked(output[-_LONGEST:])


def _masked(text: str) -> str:
    return _CREDENTIALS.sub("…", text)
