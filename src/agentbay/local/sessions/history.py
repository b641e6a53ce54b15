"""The last commands and executions of a session, kept in memory for the dashboard.

Nothing is copied while a command runs: an entry knows how to read the end of its output, and does so when the dashboard
asks. Environments and file contents are not recorded, and credentials in URLs are removed.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from agentbay._lazy_attrs import define
from agentbay._wire.tools import INTERNAL_MARK

_MAX_ENTRIES = 100
_MAX_CHARACTERS = 4000  # kept of a command, and of the end of each stream
_MAX_BYTES_PER_CHARACTER = 4  # in UTF-8
_REDACTION_MARGIN_CHARACTERS = 500  # searched beyond the cut, for credentials that the cut would halve
_URL_CREDENTIALS = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")
_PUBLISHED_FIELDS = (
    "number", "kind", "text", "began", "changed", "seconds", "exit_code", "failed", "note", "stdout", "stderr"
)  # fmt: skip

OutputText = bytes | str
ReadRecentOutput = Callable[[int], tuple[OutputText, OutputText]]


@define(slots=False)
class HistoryEntry:
    """One command or execution.

    Attributes:
        kind: "shell", "background", "terminal" or a language.
        began: Seconds since the epoch.
        seconds: How long it took; None while it runs.
        exit_code: None where there is none, such as for code.
        note: How it ended, if not by itself.
        stdout, stderr: The end of the output, as of the last refresh.
        changed: The number of the last change, which grows over all entries.
        read_recent: Returns the last bytes of both streams, about as many as asked; None after it has ended.
        output_directory: Where a background command keeps its output, relative to home; "" for other kinds.
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

    def set_output_source(self, read_recent: ReadRecentOutput) -> None:
        """Set the function that reads the end of the output."""
        self.read_recent = read_recent

    def refresh_output(self) -> bool:
        """Read the end of the output, and return whether it has changed."""
        return self.read_recent is not None and self.set_output(
            *self.read_recent((_MAX_CHARACTERS + _REDACTION_MARGIN_CHARACTERS) * _MAX_BYTES_PER_CHARACTER)
        )

    def set_output(self, stdout: OutputText, stderr: OutputText) -> bool:
        """Set the end of the output, and return whether it has changed."""
        before = self.stdout, self.stderr
        self.stdout, self.stderr = _clip_start(stdout), _clip_start(stderr)
        return before != (self.stdout, self.stderr)

    def set_result(self, *, exit_code: int | None = None, failed: bool = False, note: str = "") -> None:
        """Record how it ended."""
        self.exit_code, self.failed, self.note = exit_code, failed or bool(exit_code), _clip_end(note)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that the dashboard shows."""
        return {name: getattr(self, name) for name in _PUBLISHED_FIELDS}


class CommandHistory:
    """The last entries of one session, where those that still run are removed last."""

    def __init__(self) -> None:
        self._entries: dict[int, HistoryEntry] = {}
        self._numbers, self._changes = itertools.count(1), itertools.count(1)

    @contextmanager
    def record(self, kind: str, text: str) -> Iterator[HistoryEntry]:
        """Record a command while the block runs.

        The block calls `HistoryEntry.set_result`; an error in it is recorded as the result.
        """
        entry = self._begin(kind, text)
        try:
            yield entry
        except BaseException as error:
            entry.set_result(failed=True, note=str(error) or "nobody waited for its end")
            raise
        finally:
            entry.refresh_output()
            entry.read_recent = None
            if entry.output_directory and not entry.failed:  # only the start of a background command has ended
                entry.set_result()
                entry.set_output("", "")
            else:
                self.mark_ended(entry, time.time())

    @contextmanager
    def record_shell(self, command: str) -> Iterator[HistoryEntry]:
        """Record a shell command.

        Commands that a client runs for its own work are left out, and one that starts a background command is recorded
        as that command.
        """
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
        """Record when an entry ended, in seconds since the epoch."""
        entry.seconds = max(0.0, now - entry.began)
        self.mark_changed(entry)

    def mark_changed(self, entry: HistoryEntry) -> None:
        """Give an entry a new change number, so that dashboards show it again."""
        entry.changed = next(self._changes)

    def unfinished_background(self) -> list[HistoryEntry]:
        """Return the background commands that may still run."""
        return [entry for entry in self._entries.values() if entry.output_directory and entry.seconds is None]

    def changed_since(self, change: int) -> list[HistoryEntry]:
        """Refresh all entries, and return those changed after `change`, oldest first."""
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
    """Return the command and the output directory of a background start."""
    try:
        start = json.loads(line)
        return str(start["starts"]), str(start["directory"])
    except (ValueError, RecursionError, TypeError, KeyError):  # an older client, which sends the command itself
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
