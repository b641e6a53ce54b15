"""Code: what running a piece of it gave."""

from __future__ import annotations

from typing import Any, TypeAlias

from attrs import define, field, frozen

from ..errors import CodeError
from .base import BaseResult

_MIME_TYPES = {
    "text": "text/plain",
    "html": "text/html",
    "markdown": "text/markdown",
    "png": "image/png",
    "jpeg": "image/jpeg",
    "svg": "image/svg+xml",
    "json": "application/json",
    "latex": "text/latex",
    "chart": "application/vnd.vegalite.v5+json",
}


@define(slots=False)
class ExecutionResult:
    """Something that code showed, in each form it has. The package's root calls it `CodeExecutionResult`.

    Attributes:
        text, html, markdown, svg, latex: Text.
        png, jpeg: The image, base64.
        json: A JSON value.
        chart: A Vega-Lite chart, as its JSON.
        is_main_result: Whether it is the value of the last line rather than something displayed on the way.
        data: Every form by its MIME type, those without a field of their own too. Keyword only.
    """

    text: str | None = None
    html: str | None = None
    markdown: str | None = None
    png: str | None = None
    jpeg: str | None = None
    svg: str | None = None
    json: Any = None
    latex: str | None = None
    chart: Any = None
    is_main_result: bool = False
    data: dict[str, Any] = field(factory=dict, kw_only=True, repr=False, eq=False)

    def formats(self) -> list[str]:
        """Return the names of the fields that are there."""
        return [name for name in _MIME_TYPES if getattr(self, name) is not None]

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """Show in a notebook what the code showed, except what could act on the notebook's page."""
        from .._html.sanitize import sanitize_bundle

        return sanitize_bundle(self._mime_bundle()) or {"text/plain": repr(self)}

    def _mime_bundle(self) -> dict[str, Any]:
        own = {mime: getattr(self, name) for name, mime in _MIME_TYPES.items() if getattr(self, name) is not None}
        return {**own, **self.data}


CodeExecutionResult = ExecutionResult


@define(slots=False)
class ExecutionLogs:
    """What code wrote to its standard streams, piece by piece."""

    stdout: list[str] = field(factory=list)
    stderr: list[str] = field(factory=list)


@define(slots=False)
class ExecutionError:
    """The error that ended a piece of code: the name of its class, its message, and how it came about."""

    name: str
    value: str
    traceback: str


@define(slots=False)
class EnhancedCodeExecutionResult(BaseResult):
    """Outcome of running a piece of code.

    Code that fails is an answer, not a fault: `success` is False, `error` says why, nothing is raised. Call `check()`
    to raise on it.

    Attributes:
        execution_count: How many pieces of code this language has run in the session; None if not told.
        execution_time: Seconds.
        logs: What the code wrote.
        results: What it showed, in order.
        error: The error that ended it, or None.
        error_message: `Name: message` of that error, or what kept the code from being run.
        truncated: Whether more was written or shown than the service keeps. Keyword only.
    """

    request_id: str = ""
    success: bool = False
    execution_count: int | None = None
    execution_time: float = 0.0
    logs: ExecutionLogs = field(factory=ExecutionLogs)
    results: list[ExecutionResult] = field(factory=list)
    error: ExecutionError | None = None
    error_message: str = ""
    truncated: bool = field(default=False, kw_only=True)

    @property
    def result(self) -> str:
        """The text of the code's value; if it has none, of the first thing it showed, else what it wrote."""
        for shown in self.results:
            if shown.is_main_result and shown.text is not None:
                return shown.text
        if self.results and self.results[0].text is not None:
            return self.results[0].text
        return "".join(self.logs.stdout)

    def check(self) -> EnhancedCodeExecutionResult:
        """Return the result itself if the code ran to its end.

        Raises:
            CodeTimeoutError: If it ran out of time.
            CodeError: If it ended by an error.
            AgentBayError: If it could not be run at all.
        """
        if self.success:
            return self
        if self.exception is not None:
            raise self.exception
        raise CodeError(self.error_message or None, request_id=self.request_id)

    def unwrap(self) -> EnhancedCodeExecutionResult:
        """Return the result if the code was run, however it ended; raise what prevented it."""
        if self.exception is not None:
            raise self.exception
        return self

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """Show in a notebook what the code showed, if that is one thing; else see `_repr_html_`."""
        if self.success and len(self.results) == 1 and not (self.logs.stdout or self.logs.stderr or self.truncated):
            return self.results[0]._repr_mimebundle_()
        return {}

    def _repr_html_(self) -> str | None:
        """Show in a notebook what the code wrote and showed, and how it failed."""
        if self._repr_mimebundle_():
            return None
        from .. import _html
        from .._html import sanitize

        errors = "".join(self.logs.stderr)
        trace = self.error.traceback.strip() if self.error is not None else ""
        trace = "" if trace in errors else trace
        return _html.stack(
            _html.text("".join(self.logs.stdout)),
            _html.text(errors, wrong=True),
            *(f"<div>{sanitize.bundle_to_html(item._mime_bundle())}</div>" for item in self.results),
            _html.text(trace, wrong=True),
            "" if self.success or self.error_message in errors + trace else _html.failure(self.error_message),
            _html.note("More was written or shown than the service keeps." if self.truncated else ""),
        )


@frozen
class CodeContext:
    """A place in a session in which code of one language runs; what it defines is its own.

    Attributes:
        name: What it is called, in its session.
        language: What it runs. The context of a language that is there without being made has this as its name.
    """

    name: str
    language: str


@define(slots=False)
class CodeStdout:
    """Running code wrote to its standard output."""

    text: str


@define(slots=False)
class CodeStderr:
    """Running code wrote to its standard error."""

    text: str


@define(slots=False)
class CodeShown:
    """Running code showed something."""

    result: ExecutionResult


@define(slots=False)
class CodeFailed:
    """Running code met its error; the end follows. `raw` is how the service says it: `code`, `message`, ..."""

    error: ExecutionError
    raw: dict[str, Any] = field(factory=dict, repr=False)


@define(slots=False)
class CodeEnded:
    """Code has ended; `result` is all there is to know of it."""

    result: EnhancedCodeExecutionResult


CodeEvent: TypeAlias = CodeStdout | CodeStderr | CodeShown | CodeFailed | CodeEnded
