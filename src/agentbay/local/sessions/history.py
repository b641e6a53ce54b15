"""What a session was told to run, and how it ended: the last of it, in memory, for whoever looks at the session's page.

Nothing is copied while a command runs: the journal knows where its output lies, and takes the end of it when somebody
looks. Environments and contents of files are not in it; user names and passwords in URLs are taken out.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from agentbay._wire.tools import INTERNAL_MARK

_MAX_ENTRIES = 100  # entries
_MAX_CHARACTERS = 4000  # characters kept of a command, and of the end of each stream
_MAX_BYTES_PER_CHARACTER = 4  # bytes of a character
_REDACTION_MARGIN_CHARACTERS = (
    500  # characters beyond the cut that are looked through for a password that it would halve
)
_URL_CREDENTIALS = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")
_PUBLISHED_FIELDS = (
    "number", "kind", "text", "began", "changed", "seconds", "exit_code", "failed", "note", "stdout", "stderr"
)  # fmt: skip

OutputText = bytes | str
ReadRecentOutput = Callable[[int], tuple[OutputText, OutputText]]


@dataclass(slots=True)
class HistoryEntry:
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
    read_recent: ReadRecentOutput | None = None
    output_directory: str = ""

    def set_output_source(self, recent: ReadRecentOutput) -> None:
        """Say where its output can be looked at while it runs."""
        self.read_recent = recent

    def refresh_output(self) -> bool:
        """Take the end of what it has written so far; tell whether there was anything new."""
        return self.read_recent is not None and self.set_output(
            *self.read_recent((_MAX_CHARACTERS + _REDACTION_MARGIN_CHARACTERS) * _MAX_BYTES_PER_CHARACTER)
        )

    def set_output(self, stdout: OutputText, stderr: OutputText) -> bool:
        """Note the end of what it has written; tell whether it is anything new."""
        before = self.stdout, self.stderr
        self.stdout, self.stderr = _clip_start(stdout), _clip_start(stderr)
        return before != (self.stdout, self.stderr)

    def set_result(self, *, exit_code: int | None = None, failed: bool = False, note: str = "") -> None:
        """Note how it ended."""
        self.exit_code, self.failed, self.note = exit_code, failed or bool(exit_code), _clip_end(note)

    def to_dict(self) -> dict[str, Any]:
        """Return what the page shows of it."""
        return {name: getattr(self, name) for name in _PUBLISHED_FIELDS}


class CommandHistory:
    """The last things that were run in one session; what still runs is kept longest."""

    def __init__(self) -> None:
        self._entries: dict[int, HistoryEntry] = {}
        self._numbers, self._changes = itertools.count(1), itertools.count(1)

    @contextmanager
    def record(self, kind: str, text: str) -> Iterator[HistoryEntry]:
        """Note that something runs, and when it has ended; how, `Entry.end` is told, or an error says."""
        entry = self._begin(kind, text)
        try:
            yield entry
        except BaseException as error:
            entry.set_result(failed=True, note=str(error) or "nobody waited for its end")
            raise
        finally:
            entry.refresh_output()
            entry.read_recent = None
            if (
                entry.output_directory and not entry.failed
            ):  # it runs on; what is known so far is only how it was started
                entry.set_result()
                entry.set_output("", "")
            else:
                self.mark_ended(entry, time.time())

    @contextmanager
    def record_shell(self, command: str) -> Iterator[HistoryEntry]:
        """Note a command; those by which a client does work of its own are left out, or told by what they start."""
        first = command.partition("\n")[0]
        if first == INTERNAL_MARK:
            yield HistoryEntry(0, "", "", 0.0, 0)
        elif first.startswith(INTERNAL_MARK):
            text, directory = _parse_background_start(first[len(INTERNAL_MARK) :])
            with self.record("background", text) as entry:
                entry.output_directory = directory
                yield entry
        else:
            with self.record("shell", command) as entry:
                yield entry

    def mark_ended(self, entry: HistoryEntry, now: float) -> None:
        """Note when something has ended."""
        entry.seconds = max(0.0, now - entry.began)
        self.mark_changed(entry)

    def mark_changed(self, entry: HistoryEntry) -> None:
        """Have an entry told to whoever looks."""
        entry.changed = next(self._changes)

    def unfinished_background(self) -> list[HistoryEntry]:
        """Return what was started in the background, and of whose end nothing is known yet."""
        return [entry for entry in self._entries.values() if entry.output_directory and entry.seconds is None]

    def changed_since(self, change: int) -> list[HistoryEntry]:
        """Return the entries that changed after `change`, the oldest first, with what they have written by now."""
        for entry in self._entries.values():
            if entry.refresh_output():
                self.mark_changed(entry)
        return [entry for entry in self._entries.values() if entry.changed > change]

    def _begin(self, kind: str, text: str) -> HistoryEntry:
        if len(self._entries) >= _MAX_ENTRIES:
            ended = (number for number, entry in self._entries.items() if entry.seconds is not None)
            del self._entries[next(ended, next(iter(self._entries)))]
        entry = HistoryEntry(next(self._numbers), kind, _clip_end(text), time.time(), next(self._changes))
        self._entries[entry.number] = entry
        return entry


def _parse_background_start(line: str) -> tuple[str, str]:
    """Read what a client says that it starts: the command, and the directory; a line of another form is the command."""
    try:
        said = json.loads(line)
        return str(said["starts"]), str(said["directory"])
    except (ValueError, RecursionError, TypeError, KeyError):
        return line, ""


def _clip_end(text: str) -> str:
    text = _redact(text[: _MAX_CHARACTERS + _REDACTION_MARGIN_CHARACTERS])
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"


def _clip_start(output: OutputText) -> str:
    if not isinstance(output, str):
        output = output[-(_MAX_CHARACTERS + _REDACTION_MARGIN_CHARACTERS) * _MAX_BYTES_PER_CHARACTER :].decode(
            "utf-8", "replace"
        )
    text = _redact(output[-(_MAX_CHARACTERS + _REDACTION_MARGIN_CHARACTERS) :])
    return text if len(text) <= _MAX_CHARACTERS else "…" + text[1 - _MAX_CHARACTERS :]


def _redact(text: str) -> str:
    return _URL_CREDENTIALS.sub("…", text)
