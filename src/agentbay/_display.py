"""Progress bars and output of running code, on a terminal or in a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, TypeAlias

from . import _html
from .models.code import CodeCleared, CodeEvent, CodeShown, CodeStderr, CodeStdout
from .models.tree import TreeProgress

ProgressCallback: TypeAlias = Callable[[int | TreeProgress], None]
_REFRESH_SECONDS = 0.1  # least time between two updates of a bar in a notebook


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator[ProgressCallback]:
    """Show a progress bar for a `with` block.

    It appears in a notebook, and on standard error if that is a terminal and the package `rich` is installed. The block
    may contain `await`. Methods with a parameter `progress` or `progress_cb` take the function that it yields.

    Args:
        title: Label of the bar.
        total: Bytes to move; None if unknown. `push` and `pull` report it by themselves.

    Yields:
        A function to call with the number of bytes so far.
    """
    if in_notebook():
        bar: _Bar = _NotebookBar(title)
    elif sys.stderr is not None and sys.stderr.isatty() and find_spec("rich") is not None:
        bar = _TerminalBar(title)
    else:
        yield lambda _: None
        return
    done, began = 0, time.monotonic()

    def report(now: int | TreeProgress) -> None:
        nonlocal done, total
        done, total = (now.bytes_done, now.bytes_total) if isinstance(now, TreeProgress) else (now, total)
        bar.show(done, total)

    bar.show(0, total)
    outcome = "failed"
    try:
        yield report
        outcome = "done"
    finally:
        moved = f", {_html.format_size(done)}" if done else ""
        bar.end(f"{outcome}{moved}, {time.monotonic() - began:.1f} s")


def show_code_event(event: CodeEvent, run: str) -> None:
    """Show an event of running code.

    Tracebacks arrive as standard error.

    Args:
        event: The event.
        run: An id of the run, since display ids of different sessions may be the same.
    """
    if isinstance(event, CodeStdout):
        write_to_stream("stdout", event.text)
    elif isinstance(event, CodeStderr):
        write_to_stream("stderr", event.text)
    elif isinstance(event, CodeShown):
        if not in_notebook():
            write_to_stream("stdout", f"{event.result.text or event.result.formats()}\n")
        elif event.display_id is None:
            _import_ipython_display().display(event.result)
        else:
            identity = f"{run} {event.display_id}"
            _import_ipython_display().display(event.result, display_id=identity, update=event.replaces)
    elif isinstance(event, CodeCleared) and in_notebook():
        _import_ipython_display().clear_output()


def write_to_stream(stream: str, text: str) -> None:
    """Write to "stdout" or "stderr" and flush.

    Characters that the encoding of the stream lacks are escaped.
    """
    target = getattr(sys, stream)
    if target is None:  # a program without a console
        return
    encoding = getattr(target, "encoding", None) or "utf-8"
    target.write(text.encode(encoding, "backslashreplace").decode(encoding))
    target.flush()


def in_notebook() -> bool:
    """Return whether this code runs in a notebook, not in IPython on a terminal."""
    # Not imported: where IPython is not loaded yet, this is no notebook, and the import takes long.
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def _import_ipython_display() -> Any:
    return import_module("IPython.display")


class _Bar(Protocol):
    def show(self, done: int, total: int | None) -> None: ...
    def end(self, summary: str) -> None: ...


class _NotebookBar:
    """A progress bar in a notebook cell, made of HTML alone, without widgets."""

    def __init__(self, title: str) -> None:
        self._title, self._last_update = title, 0.0
        self._html_class, self._handle = _import_ipython_display().HTML, _import_ipython_display().DisplayHandle()
        self._handle.display(self._html_class(_html.progress_bar(title, 0, None, "")))

    def show(self, done: int, total: int | None) -> None:
        if time.monotonic() - self._last_update >= _REFRESH_SECONDS:
            self._last_update = time.monotonic()
            self._handle.update(
                self._html_class(_html.progress_bar(self._title, done, total, _format_bytes_done(done, total)))
            )

    def end(self, summary: str) -> None:
        self._handle.update(self._html_class(_html.note(f"{self._title}: {summary}")))


class _TerminalBar:
    """A progress bar on standard error that disappears at the end."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress as Bars, TextColumn, TimeElapsedColumn

        # Without markup, since rich would read brackets in a title as its own commands.
        texts = [TextColumn(form, markup=False) for form in ("{task.description}", "{task.fields[amount]}")]
        self._progress = Bars(
            texts[0],
            BarColumn(),
            texts[1],
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,  # which may be a file or a pipe, and must get what the program prints
        )
        self._task = self._progress.add_task(title, total=None, amount="")
        self._progress.start()

    def show(self, done: int, total: int | None) -> None:
        self._progress.update(self._task, completed=done, total=total, amount=_format_bytes_done(done, total))

    def end(self, summary: str) -> None:
        self._progress.stop()


def _format_bytes_done(done: int, total: int | None) -> str:
    of = f" of {_html.format_size(total)}" if total else ""
    return f"{_html.format_size(done)}{of}" if done or of else ""
