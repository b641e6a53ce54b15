"""What is shown while something goes on: on a terminal, or in the cell of a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol, TypeAlias

from . import _html
from .errors import ConfigurationError
from .models.code import CodeEvent, CodeShown, CodeStderr, CodeStdout
from .models.tree import TreeProgress

ProgressCallback: TypeAlias = Callable[[int | TreeProgress], None]
_REFRESH_SECONDS = 0.1  # seconds between two states of a bar in a notebook


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator[ProgressCallback]:
    """Show for a `with` block that something goes on, and how far it is: in a notebook's cell, or on a terminal.

    Elsewhere, as in a pipe or a log, nothing is shown. It serves every wait, also of `await`; what it yields can be
    given to every method that takes a function to tell its progress, as `progress` or `progress_cb`.

    Args:
        title: What goes on.
        total: Bytes there are to move; None is not known, or nothing is moved. `push` and `pull` tell it by themselves.

    Yields:
        A function that is told the bytes so far.

    Raises:
        ConfigurationError: On a terminal, if the package `rich` is not there.
    """
    if in_notebook():
        bar: _Bar = _NotebookBar(title)
    elif sys.stderr is not None and sys.stderr.isatty():
        bar = _TerminalBar(title)
    else:
        yield lambda _: None
        return
    done, began = 0, time.monotonic()

    def tell(now: int | TreeProgress) -> None:
        nonlocal done, total
        done, total = (now.bytes_done, now.bytes_total) if isinstance(now, TreeProgress) else (now, total)
        bar.show(done, total)

    bar.show(0, total)
    outcome = "failed"
    try:
        yield tell
        outcome = "done"
    finally:
        moved = f", {_html.format_size(done)}" if done else ""
        bar.end(f"{outcome}{moved}, {time.monotonic() - began:.1f} s")


def show_code_event(event: CodeEvent) -> None:
    """Show what happens in running code; how an error came about, code writes by itself."""
    if isinstance(event, CodeStdout):
        write_to_stream("stdout", event.text)
    elif isinstance(event, CodeStderr):
        write_to_stream("stderr", event.text)
    elif isinstance(event, CodeShown):
        if in_notebook():
            _import_ipython_display().display(event.result)
        else:
            write_to_stream("stdout", f"{event.result.text or event.result.formats()}\n")


def write_to_stream(stream: str, text: str) -> None:
    """Write to "stdout" or "stderr", at once; what the stream cannot write is escaped."""
    target = getattr(sys, stream)
    if target is None:  # a program without a console
        return
    encoding = getattr(target, "encoding", None) or "utf-8"
    target.write(text.encode(encoding, "backslashreplace").decode(encoding))
    target.flush()


def in_notebook() -> bool:
    """Whether what is displayed gets into the cell of a notebook. IPython on a terminal is a terminal."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def _import_ipython_display() -> Any:
    return import_module("IPython.display")


class _Bar(Protocol):
    def show(self, done: int, total: int | None) -> None: ...
    def end(self, said: str) -> None: ...


class _NotebookBar:
    """A bar in a cell, by means of HTML alone: a notebook without widgets has it too."""

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

    def end(self, said: str) -> None:
        self._handle.update(self._html_class(_html.note(f"{self._title}: {said}")))


class _TerminalBar:
    """A bar on the terminal, on standard error; it goes away in the end."""

    def __init__(self, title: str) -> None:
        try:
            from rich.console import Console
            from rich.progress import BarColumn, Progress as Bars, TextColumn, TimeElapsedColumn
        except ImportError as error:
            hint = "Install it: pip install 'agentbay-sdk[local]', or pip install rich."
            raise ConfigurationError("A progress bar needs the package rich.", hint=hint) from error
        texts = [TextColumn(form, markup=False) for form in ("{task.description}", "{task.fields[said]}")]
        self._progress = Bars(
            texts[0], BarColumn(), texts[1], TimeElapsedColumn(), console=Console(stderr=True), transient=True
        )
        self._task = self._progress.add_task(title, total=None, said="")
        self._progress.start()

    def show(self, done: int, total: int | None) -> None:
        self._progress.update(self._task, completed=done, total=total, said=_format_bytes_done(done, total))

    def end(self, said: str) -> None:
        self._progress.stop()


def _format_bytes_done(done: int, total: int | None) -> str:
    of = f" of {_html.format_size(total)}" if total else ""
    return f"{_html.format_size(done)}{of}" if done or of else ""
