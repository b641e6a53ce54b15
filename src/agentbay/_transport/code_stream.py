"""What frames say of code that runs, and what they come to in the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._wire.tools import RunCode
from ..errors import CodeTimeoutError
from ..models.code import (
    CodeEvent,
    CodeFailed,
    CodeShown,
    CodeStderr,
    CodeStdout,
    EnhancedCodeExecutionResult,
    ExecutionError,
    ExecutionLogs,
    ExecutionResult,
)
from .code import _integer, _seconds, _text, error_of, message_of, result_of


def request(call: RunCode, largest: int) -> dict[str, Any]:
    """What to send to run code; `largest` is the longest frame that is understood here, in bytes."""
    params = {**_place(call), "timeoutS": call.timeout_s, "code": call.code, "largestFrame": largest}
    return {"method": "run_code", "mode": "stream", "params": params}


def interruption(call: RunCode) -> dict[str, Any]:
    """What to send to interrupt the code that runs where a call's does."""
    return {"method": "interrupt_code", "params": _place(call)}


def _place(call: RunCode) -> dict[str, Any]:
    return {"language": call.language} if call.context is None else {"context": call.context}


class Recording:
    """Collects the events of one piece of code."""

    def __init__(self) -> None:
        self._logs = ExecutionLogs()
        self._results: list[ExecutionResult] = []
        self._error: ExecutionError | None = None

    def take(self, data: Mapping[str, Any]) -> CodeEvent | None:
        """Read an event; None if it means nothing."""
        kind, chunk = data.get("eventType"), data.get("chunk")
        if kind == "stdout" and isinstance(chunk, str):
            self._logs.stdout.append(chunk)
            return CodeStdout(chunk)
        if kind == "stderr" and isinstance(chunk, str):
            self._logs.stderr.append(chunk)
            return CodeStderr(chunk)
        if kind == "result":
            shown = _shown(data.get("result"))
            self._results.append(shown)
            return CodeShown(shown)
        if kind == "error":
            said = data.get("error")
            self._error = _error(said)
            return CodeFailed(self._error, dict(said) if isinstance(said, Mapping) else {"message": _text(said)})
        return None

    def finish(self, end: Mapping[str, Any], request_id: str) -> EnhancedCodeExecutionResult:
        """Read the end; return all that there was."""
        failed = end.get("status") == "failed"
        error = error_of(end.get("executionError"), self._logs.stderr, failed, None) if not self._error else self._error
        message = _text(end.get("executionError")) or ("" if error is None else message_of(error))
        late = CodeTimeoutError(message, request_id=request_id, hint="Give it a longer timeout_s.")
        return EnhancedCodeExecutionResult(
            request_id=request_id,
            success=error is None,
            execution_count=_integer(end.get("executionCount")),
            execution_time=_seconds(end.get("executionTime")),
            logs=self._logs,
            results=self._results,
            error=error,
            error_message=message,
            exception=late if error is not None and end.get("timedOut") else None,
            truncated=bool(end.get("truncated")),
        )


def _shown(result: object) -> ExecutionResult:
    if not isinstance(result, Mapping):
        text = _text(result)
        return ExecutionResult(text=text, data={"text/plain": text})
    mime = result.get("mime")
    return result_of({**result, **mime} if isinstance(mime, Mapping) else result)


def _error(error: object) -> ExecutionError:
    if not isinstance(error, Mapping):
        return ExecutionError("ExecutionError", _text(error), "")
    trace = error.get("traceback") or (f"traceId={error['traceId']}" if error.get("traceId") else "")
    name, value = error.get("code") or "ExecutionError", error.get("message", error.get("error"))
    return ExecutionError(_text(name), _text(value), _text(trace))
