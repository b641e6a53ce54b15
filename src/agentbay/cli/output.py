"""Output of the command line.

Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from agentbay.errors import AgentBayError

if TYPE_CHECKING:
    from agentbay import TreeProgress

    Progress = Callable[[int | TreeProgress], None]

_ERROR_FIELDS = ("code", "request_id", "status_code", "retryable")


class CommandOutput:
    """Writes results, notes, errors and progress.

    Attributes:
        json: Whether results and errors are written as JSON.
    """

    def __init__(self) -> None:
        self.json = False

    # ── Results ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def show(self, value: object, text: str) -> None:
        """Write a result, as JSON or as text."""
        self.show_json(value)
        if text and not self.json:
            print(text)

    def show_fields(self, facts: Mapping[str, Any]) -> None:
        """Write names and values, one per line."""
        width = max(map(len, facts), default=0)
        self.show(facts, "\n".join(f"{name:<{width}}  {_format_cell(value)}" for name, value in facts.items()))

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
            print(json.dumps(value, indent=2, ensure_ascii=False))

    # ── Everything else ──────────────────────────────────────────────────────────────────────────────────────────────

    def note(self, text: str) -> None:
        """Write a note to standard error, but not in JSON mode."""
        if not self.json:
            print(text, file=sys.stderr)

    def error(self, error: AgentBayError | OSError) -> None:
        """Write an error with its hint to standard error."""
        if self.json:
            print(json.dumps({"error": _error_to_dict(error)}, ensure_ascii=False), file=sys.stderr)
            return
        if isinstance(error, AgentBayError):
            message, hint = error.message, error.hint
        else:
            message, hint = f"{error.filename}: {error.strerror}" if error.filename else str(error), ""
        red, plain = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() else ("", "")
        print(f"{red}Error:{plain} {message}", *([hint] if hint else []), sep="\n", file=sys.stderr)
        if isinstance(error, AgentBayError) and error.request_id:
            print(f"(request {error.request_id})", file=sys.stderr)

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

        with nullcontext(_ignore_progress) if self.json else progress(what, total) as report:
            yield report


def _ignore_progress(done: int | TreeProgress) -> None:
    pass


def _error_to_dict(error: AgentBayError | OSError) -> dict[str, Any]:
    if isinstance(error, OSError) and not isinstance(error, AgentBayError):
        return {"type": type(error).__name__, "message": str(error)}
    assert isinstance(error, AgentBayError)
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
        return " ".join(f"{name}={item}" for name, item in value.items())
    if isinstance(value, list):
        return " ".join(map(_format_cell, value))
    return "" if value is None else str(value)


output = CommandOutput()
