"""The stream of events of running code, and its requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._wire.tools import RunCode
from ..errors import CodeTimeoutError
from ..models.code import (
    CodeCleared,
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
from .code import _float_or_zero, _int_or_none, _to_text, format_error, make_execution_result, read_error
from .command import read_refused_hosts, with_network_hint


def make_run_request(call: RunCode, largest: int) -> dict[str, Any]:
    """Return the request to run code.

    Args:
        call: The call.
        largest: Size in bytes of the largest frame that this client reads.
    """
    params = {**_target_params(call), "timeoutS": call.timeout_s, "code": call.code, "largestFrame": largest}
    params["displayUpdates"] = True  # events may replace or clear what earlier ones displayed
    return {"method": "run_code", "mode": "stream", "params": params}


def make_interrupt_request(call: RunCode) -> dict[str, Any]:
    """Return the request to interrupt the code that runs in a call's context."""
    return {"method": "interrupt_code", "params": _target_params(call)}


def _target_params(call: RunCode) -> dict[str, Any]:
    return {"language": call.language} if call.context is None else {"context": call.context}


class CodeEventCollector:
    """Collects the events of one run."""

    def __init__(self) -> None:
        self._logs = ExecutionLogs()
        self._shown: list[CodeShown] = []
        self._error: ExecutionError | None = None

    def add_event(self, data: Mapping[str, Any]) -> CodeEvent | None:
        """Return the event that a frame holds, or None for an unknown one."""
        kind, chunk = data.get("eventType"), data.get("chunk")
        if kind == "stdout" and isinstance(chunk, str):
            self._logs.stdout.append(chunk)
            return CodeStdout(chunk)
        if kind == "stderr" and isinstance(chunk, str):
            self._logs.stderr.append(chunk)
            return CodeStderr(chunk)
        if kind == "result":
            shown = CodeShown(
                _read_shown(data.get("result")),
                display_id=_text_or_none(data.get("display")),
                replaces=data.get("update") is True,
            )
            self._add_shown(shown)
            return shown
        if kind == "clear":
            self._shown.clear()
            return CodeCleared()
        if kind == "error":
            raw = data.get("error")
            self._error = _read_error_event(raw)
            return CodeFailed(self._error, dict(raw) if isinstance(raw, Mapping) else {"message": _to_text(raw)})
        return None

    def _add_shown(self, shown: CodeShown) -> None:
        if shown.replaces and any(old.display_id == shown.display_id for old in self._shown):
            self._shown = [shown if old.display_id == shown.display_id else old for old in self._shown]
        else:
            self._shown.append(shown)

    def make_result(self, end: Mapping[str, Any], request_id: str) -> EnhancedCodeExecutionResult:
        """Return the result of the run, from its last frame and the events before."""
        failed = end.get("status") == "failed"
        error = (
            read_error(end.get("executionError"), self._logs.stderr, failed, None) if not self._error else self._error
        )
        message = _to_text(end.get("executionError")) or ("" if error is None else format_error(error))
        refused_hosts = read_refused_hosts(end)
        late = CodeTimeoutError(message, request_id=request_id, hint="Give it a longer timeout.")
        return EnhancedCodeExecutionResult(
            request_id=request_id,
            success=error is None,
            execution_count=_int_or_none(end.get("executionCount")),
            execution_time=_float_or_zero(end.get("executionTime")),
            logs=self._logs,
            results=[shown.result for shown in self._shown],
            error=error,
            error_message=with_network_hint(message, refused_hosts if message else []),
            exception=late if error is not None and end.get("timedOut") else None,
            truncated=bool(end.get("truncated")),
            refused_hosts=refused_hosts,
        )


def _read_shown(result: object) -> ExecutionResult:
    if not isinstance(result, Mapping):
        text = _to_text(result)
        return ExecutionResult(text=text, data={"text/plain": text})
    mime = result.get("mime")
    return make_execution_result({**result, **mime} if isinstance(mime, Mapping) else result)


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _read_error_event(error: object) -> ExecutionError:
    if not isinstance(error, Mapping):
        return ExecutionError("ExecutionError", _to_text(error), "")
    trace = error.get("traceback") or (f"traceId={error['traceId']}" if error.get("traceId") else "")
    name, value = error.get("code") or "ExecutionError", error.get("message", error.get("error"))
    return ExecutionError(_to_text(name), _to_text(value), _to_text(trace))
