"""Output of the command line.

Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from agentbay.errors import AgentBayError

if TYPE_CHECKING:
    from agentbay import TreeProgress

    Progress = Callable[[int | TreeProgress], None]

_ERROR_FIELDS = ("code", "request_id", "status_code", "retryable")
# C0 and C1 control characters, line separators, bidirectional overrides and lone surrogates. Names and messages come
# from untrusted code, which could otherwise send escape sequences to the terminal or forge lines.
_CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTROL_CHARACTERS_IN_LINES = re.compile(_CONTROL_CHARACTERS.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))


class CommandOutput:
    """Writes results, notes, errors and progress.

    Attributes:
        json: Whether results and errors are written as JSON.
        partial_result: What a failing command has produced, which an error in JSON mode includes.
    """

    def __init__(self) -> None:
        self.json = False
        self.partial_result: dict[str, Any] = {}

    def reset(self, *, json: bool) -> None:
        """Start a new command line."""
        self.json = json
        self.partial_result = {}

    def show(self, value: object, *lines: str) -> None:
        """Write a result, as JSON or as lines of text."""
        self.show_json(value)
        if not self.json:
            for line in lines:
                print(escape_control_characters(line))

    def show_fields(self, fields: Mapping[str, Any]) -> None:
        """Write names and values, one per line."""
        width = max(map(len, fields), default=0)
        self.show(fields, *(f"{name:<{width}}  {_format_cell(value)}" for name, value in fields.items()))

    def show_table(self, rows: Sequence[Mapping[str, Any]], nothing: str) -> None:
        """Write a table on a terminal, and tab-separated lines elsewhere."""
        if self.json:
            self.show_json(rows)
        elif not rows:
            self.note(nothing)
        elif sys.stdout.isatty():
            _print_table(rows)
        else:
            print("\n".join("\t".join(map(_format_cell, row.values())) for row in rows))

    def show_json(self, value: object) -> None:
        """Write a result in JSON mode, and nothing otherwise."""
        if self.json:
            print(_to_json(value, indent=2))

    def note(self, text: str) -> None:
        """Write a note to standard error, but not in JSON mode."""
        if not self.json:
            print(_escape_in_lines(text), file=sys.stderr)

    def note_part(self, text: str) -> None:
        """Write a part of a longer note, as it comes."""
        if not self.json:
            lines = text.replace("\r\n", "\n").replace("\r", "\n")
            print(_escape_in_lines(lines), end="", flush=True, file=sys.stderr)

    def error(self, error: Exception) -> None:
        """Write an error with its hint to standard error."""
        if self.json:
            self.error_as_json(_error_to_dict(error))
            return
        message, hint = _describe_error(error)
        red, plain = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() else ("", "")
        lines = [_escape_in_lines(line) for line in (message, hint) if line]
        print(f"{red}Error:{plain} {lines[0]}", *lines[1:], sep="\n", file=sys.stderr)
        if isinstance(error, AgentBayError) and error.request_id:
            print(f"(request {escape_control_characters(error.request_id)})", file=sys.stderr)

    def error_as_json(self, fields: Mapping[str, Any]) -> None:
        """Write an error with the command's partial result as a JSON line."""
        print(_to_json({"error": fields, **self.partial_result}), file=sys.stderr)

    @contextmanager
    def show_busy(self, what: str) -> Iterator[None]:
        """Show a spinner on a terminal."""
        with self.progress(what, None):
            yield

    @contextmanager
    def progress(self, what: str, total: int | None) -> Iterator[Progress]:
        """Show a progress bar on a terminal.

        Yields:
            A function to call with the number of bytes so far.
        """
        from agentbay import progress

        title = escape_control_characters(what)
        with nullcontext(_ignore_progress) if self.json else progress(title, total) as report:
            yield report


def escape_control_characters(text: str) -> str:
    """Escape control characters, line ends too, as Python does in a string."""
    return _CONTROL_CHARACTERS.sub(_escape, text)


def _escape_in_lines(text: str) -> str:
    return _CONTROL_CHARACTERS_IN_LINES.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _to_json(value: object, indent: int | None = None) -> str:
    """Return JSON without control characters except line ends, which json.dumps leaves in part."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _CONTROL_CHARACTERS_IN_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _ignore_progress(done: int | TreeProgress) -> None:
    pass


def _describe_error(error: Exception) -> tuple[str, str]:
    """Return the message and the hint of an error."""
    if isinstance(error, AgentBayError):
        return error.message, error.hint
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}", ""
    return str(error), ""


def _error_to_dict(error: Exception) -> dict[str, Any]:
    if not isinstance(error, AgentBayError):
        return {"type": type(error).__name__, "message": str(error)}
    known = {name: getattr(error, name) for name in _ERROR_FIELDS}
    return {"type": type(error).__name__, "message": error.message, "hint": error.hint, **known}


def _print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_format_cell(value)) for value in row.values()))
    Console().print(table)


def _format_cell(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{_format_cell(name)}={_format_cell(item)}" for name, item in value.items())
    if isinstance(value, list):
        return " ".join(map(_format_cell, value))
    return "" if value is None else escape_control_characters(str(value))


output = CommandOutput()
