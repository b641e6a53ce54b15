"""What a session was told to run, and how it ended: the last of it, in memory, for whoever looks at the session's page.

Nothing is copied while a command runs: the journal knows where its output lies, and takes the end of it when somebody
looks. Environments and contents of files are not in it; user names and passwords in URLs are taken out.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator, Reversible
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, AnyStr

from agentbay._wire.tools import ASIDE

_MOST = 100  # entries
_LONGEST = 4000  # characters kept of a command, and of the end of each stream
_WIDEST = 4  # bytes of a character
_SPARE = 500  # characters beyond the cut that are looked through for a password that it would halve
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")
_TOLD = (
    "number", "kind", "text", "began", "changed", "seconds", "exit_code", "failed", "note", "stdout", "stderr"
)  # fmt: skip

Text = bytes | str
Recent = Callable[[int], tuple[Text, Text]]


@dataclass(slots=True)
class Entry:
    """Something that runs, or ran.

    Attributes:
        kind: "shell", "background", "terminal" or a language.
        began: Seconds since the epoch.
        seconds: How long it took; None as long as it runs.
        exit_code: None for what has none, such as code.
        note: How it ended, if not by itself.
        stdout, stderr: The end of what it has written, when somebody last looked.
        changed: Grows with each change of any entry.
        recent: Returns the end of what it has written so far, about so many bytes of each stream; None when it has
            ended, or where that cannot be told.
        directory: Where, below the home, something in the background keeps what it writes; "" for all else.
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
    recent: Recent | None = None
    directory: str = ""

    def follow(self, recent: Recent) -> None:
        """Say where its output can be looked at while it runs."""
        self.recent = recent

    def look(self) -> bool:
        """Take the end of what it has written so far; tell whether there was anything new."""
        return self.recent is not None and self.wrote(*self.recent((_LONGEST + _SPARE) * _WIDEST))

    def wrote(self, stdout: Text, stderr: Text) -> bool:
        """Note the end of what it has written; tell whether it is anything new."""
        before = self.stdout, self.stderr
        self.stdout, self.stderr = _tail(stdout), _tail(stderr)
        return before != (self.stdout, self.stderr)

    def end(self, *, exit_code: int | None = None, failed: bool = False, note: str = "") -> None:
        """Note how it ended."""
        self.exit_code, self.failed, self.note = exit_code, failed or bool(exit_code), _head(note)

    def told(self) -> dict[str, Any]:
        """Return what the page shows of it."""
        return {name: getattr(self, name) for name in _TOLD}


class Journal:
    """The last things that were run in one session; what still runs is kept longest."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
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
            entry.look()
            entry.recent = None
            if entry.directory and not entry.failed:  # it runs on; what is known so far is only how it was started
                entry.end()
                entry.wrote("", "")
            else:
                self.finish(entry, time.time())

    @contextmanager
    def record_shell(self, command: str) -> Iterator[Entry]:
        """Note a command; those by which a client does work of its own are left out, or told by what they start."""
        first = command.partition("\n")[0]
        if first == ASIDE:
            yield Entry(0, "", "", 0.0, 0)
        elif first.startswith(ASIDE):
            text, directory = _read_start(first[len(ASIDE) :])
            with self.record("background", text) as entry:
                entry.directory = directory
                yield entry
        else:
            with self.record("shell", command) as entry:
                yield entry

    def finish(self, entry: Entry, now: float) -> None:
        """Note when something has ended."""
        entry.seconds = max(0.0, now - entry.began)
        self.note_change(entry)

    def note_change(self, entry: Entry) -> None:
        """Have an entry told to whoever looks."""
        entry.changed = next(self._changes)

    def in_background(self) -> list[Entry]:
        """Return what was started in the background, and of whose end nothing is known yet."""
        return [entry for entry in self._entries.values() if entry.directory and entry.seconds is None]

    def since(self, change: int) -> list[Entry]:
        """Return the entries that changed after `change`, the oldest first, with what they have written by now."""
        for entry in self._entries.values():
            if entry.look():
                self.note_change(entry)
        return [entry for entry in self._entries.values() if entry.changed > change]

    def _begin(self, kind: str, text: str) -> Entry:
        if len(self._entries) >= _MOST:
            ended = (number for number, entry in self._entries.items() if entry.seconds is not None)
            del self._entries[next(ended, next(iter(self._entries)))]
        entry = Entry(next(self._numbers), kind, _head(text), time.time(), next(self._changes))
        self._entries[entry.number] = entry
        return entry


def last(pieces: Reversible[AnyStr], size: int) -> list[AnyStr]:
    """Return the last pieces, in order, that have `size` characters or bytes between them, if all have as many."""
    found: list[AnyStr] = []
    for piece in reversed(pieces):
        if size <= 0:
            break
        found.append(piece)
        size -= len(piece)
    return found[::-1]


def _read_start(line: str) -> tuple[str, str]:
    """Read what a client says that it starts: the command, and the directory; a line of another form is the command."""
    try:
        said = json.loads(line)
        return str(said["starts"]), str(said["directory"])
    except (ValueError, RecursionError, TypeError, KeyError):
        return line, ""


def _head(text: str) -> str:
    text = _masked(text[: _LONGEST + _SPARE])
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _tail(output: Text) -> str:
    if not isinstance(output, str):
        output = output[-(_LONGEST + _SPARE) * _WIDEST :].decode("utf-8", "replace")
    text = _masked(output[-(_LONGEST + _SPARE) :])
    return text if len(text) <= _LONGEST else "…" + text[1 - _LONGEST :]


def _masked(text: str) -> str:
    return _CREDENTIALS.sub("…", text)
