"""Results and events of running code."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

from attrs import frozen

from .._lazy_attrs import define, field
from ..errors import CodeError
from .base import BaseResult

MIME_TYPES = {
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
VEGA_LITE_TYPE = re.compile(r"application/vnd\.vegalite\.v\d+(?:\.\d+)*[+.]json")  # such as Altair's ".v6.json"


@define(slots=False)
class ExecutionResult:
    """One output that code displayed, in every MIME type it has.

    `agentbay` exports it as `CodeExecutionResult`.

    Attributes:
        text, html, markdown, svg, latex: The output as text of that type.
        png, jpeg: The output as an image, base64.
        json: The output as a JSON value.
        chart: The JSON of a Vega-Lite chart, of any version.
        is_main_result: Whether it is the value of the last expression, rather than displayed by a call.
        data: Further MIME types and their values, also those that have no field here. Keyword only.
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
        """Return the names of the fields that are set."""
        return [name for name in MIME_TYPES if getattr(self, name) is not None]

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """Return the MIME types that a notebook may show, without active content."""
        from .._html.sanitize import sanitize_bundle

        return sanitize_bundle(self._mime_bundle()) or {"text/plain": repr(self)}

    def _mime_bundle(self) -> dict[str, Any]:
        own = {mime: getattr(self, name) for name, mime in MIME_TYPES.items() if getattr(self, name) is not None}
        if any(VEGA_LITE_TYPE.fullmatch(mime) for mime in self.data):
            own.pop(MIME_TYPES["chart"], None)  # the chart has the name of its own version there
        return {**own, **self.data}


CodeExecutionResult = ExecutionResult


@define(slots=False)
class ExecutionLogs:
    """What code wrote to its standard streams, in chunks."""

    stdout: list[str] = field(factory=list)
    stderr: list[str] = field(factory=list)


@define(slots=False)
class ExecutionError:
    """The error that ended the code: class name, message and traceback."""

    name: str
    value: str
    traceback: str


@define(slots=False)
class EnhancedCodeExecutionResult(BaseResult):
    """Outcome of running code.

    Code that raises is not an error of the call: `success` is False, `error` has the reason, and nothing is raised.
    `check()` raises it.

    Attributes:
        execution_count: How many cells of this language the session has run; None if unknown.
        execution_time: How long the code ran, in seconds.
        logs: What the code wrote to its standard streams.
        results: What it displayed, in order.
        error: The error that ended the code, or None.
        error_message: `Name: message` of that error, or the reason why the code could not run; then how to allow
            `refused_hosts`.
        truncated: Whether the service dropped output above its limit. Keyword only.
        refused_hosts: Hosts that the session's network refused while the code, or a `%pip` or `!command` in it, failed.
            Keyword only.
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
    refused_hosts: list[str] = field(factory=list, kw_only=True)

    @property
    def result(self) -> str:
        """The value of the code as text.

        Without a value it is the text of the first display, and without that the standard output.
        """
        for shown in self.results:
            if shown.is_main_result and shown.text is not None:
                return shown.text
        if self.results and self.results[0].text is not None:
            return self.results[0].text
        return "".join(self.logs.stdout)

    def check(self) -> EnhancedCodeExecutionResult:
        """Return the result, or raise if the code failed.

        Raises:
            CodeTimeoutError: If the code ran out of time.
            CodeError: If the code raised an error.
            AgentBayError: If the code could not run at all.
        """
        if self.success:
            return self
        if self.exception is not None:
            raise self.exception
        raise CodeError(self.error_message or None, request_id=self.request_id)

    def unwrap(self) -> EnhancedCodeExecutionResult:
        """Return the result, or raise if the code could not run.

        Its own errors do not raise.

        Raises:
            AgentBayError: `exception`, if the code could not run.
        """
        if self.exception is not None:
            raise self.exception
        return self

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """Return the MIME types of a single output.

        `_repr_html_` shows everything else.
        """
        if self.success and len(self.results) == 1 and not (self.logs.stdout or self.logs.stderr or self.truncated):
            return self.results[0]._repr_mimebundle_()
        return {}

    def _repr_html_(self) -> str | None:
        """Return HTML with all output and the error, or None for a single output."""
        if self._repr_mimebundle_():
            return None
        from .. import _html
        from .._html import sanitize

        errors = "".join(self.logs.stderr)
        trace = self.error.traceback.strip() if self.error is not None else ""
        # A service may print the traceback on the standard error too: it is shown once.
        trace = "" if trace in errors else trace
        return _html.stack(
            _html.text("".join(self.logs.stdout)),
            _html.text(errors, wrong=True),
            *(f"<div>{sanitize.bundle_to_html(item._mime_bundle())}</div>" for item in self.results),
            _html.text(trace, wrong=True),
            "" if self.success or self.error_message in errors + trace else _html.failure(self.error_message),
            _html.note("The service dropped output above its limit." if self.truncated else ""),
        )


@frozen
class CodeContext:
    """An execution context: a kernel of one language with its own variables.

    Attributes:
        name: Its name, unique in the session.
        language: The language it runs. The default context of a language has the language as its name.
    """

    name: str
    language: str


@define(slots=False)
class CodeStdout:
    """Event: the code wrote to its standard output."""

    text: str


@define(slots=False)
class CodeStderr:
    """Event: the code wrote to its standard error."""

    text: str


@define(slots=False)
class CodeShown:
    """Event: the code displayed something.

    Attributes:
        result: What it displayed.
        display_id: The id under which the code may update it, or None. Keyword only.
        replaces: Whether it takes the place of everything shown before with the same id. Keyword only.
    """

    result: ExecutionResult
    display_id: str | None = field(default=None, kw_only=True)
    replaces: bool = field(default=False, kw_only=True)


@define(slots=False)
class CodeCleared:
    """Event: the code removed everything that it had displayed, but not its text output."""


@define(slots=False)
class CodeFailed:
    """Event: the code failed.

    `CodeEnded` follows.

    Attributes:
        error: The error.
        raw: The same as the service sent it: `code`, `message`, ...
    """

    error: ExecutionError
    raw: dict[str, Any] = field(factory=dict, repr=False)


@define(slots=False)
class CodeEnded:
    """Event: the code has ended.

    `result` is its complete result.
    """

    result: EnhancedCodeExecutionResult


CodeEvent: TypeAlias = CodeStdout | CodeStderr | CodeShown | CodeCleared | CodeFailed | CodeEnded
