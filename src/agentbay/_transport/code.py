"""Read the text of the code tool, in every form known from services."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from .._wire.languages import canonical_language
from .._wire.tools import RunCode, ToolReply
from ..errors import CodeError, CodeTimeoutError, InvalidArgumentError, ReplyError
from ..models.code import (
    MIME_TYPES,
    VEGA_LITE_TYPE,
    CodeContext,
    EnhancedCodeExecutionResult,
    ExecutionError,
    ExecutionLogs,
    ExecutionResult,
)
from .code_contexts import require_context_name
from .command import read_refused_hosts, with_network_hint
from .reply import Reply

_TEXT_KEYS = {
    "text": ("text/plain", "text"),
    "html": ("text/html", "html"),
    "markdown": ("text/markdown", "markdown"),
    "png": ("image/png", "png"),
    "jpeg": ("image/jpeg", "jpeg"),
    "svg": ("image/svg+xml", "svg"),
    "latex": ("text/latex", "latex"),
}
_JSON_KEYS = ("application/json", "json")
_ERROR_LINE = re.compile(r"([A-Za-z_][\w.]*): (.*)|([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt))", re.DOTALL)
_MAX_TIMEOUT_SECONDS = 1 << 31  # the wire's integers have 32 bits
_MAX_JSON_NESTING = 4  # levels of JSON text inside JSON text, as some services send


def make_run_code(
    code: str, language: str | None, timeout_s: float | None = 60, context: CodeContext | str | None = None
) -> RunCode:
    """Return the tool call that runs code.

    Raises:
        CodeError: If there is neither a language nor a context, or both.
        InvalidArgumentError: If the time limit is no positive number of seconds, or the context is neither a
            `CodeContext` nor a name.
    """
    if timeout_s is None:
        timeout_s = 60
    if (
        isinstance(timeout_s, bool)
        or not isinstance(timeout_s, (int, float))
        or not 0 < timeout_s < _MAX_TIMEOUT_SECONDS
    ):
        raise InvalidArgumentError(
            f"timeout_s must be a positive number of seconds below {_MAX_TIMEOUT_SECONDS}, not {timeout_s!r}",
            hint="The time limit cannot be infinite: give a large number.",
        )
    # The protocol has whole seconds. Rounded up, so that 0.5 does not become 0.
    seconds = math.ceil(timeout_s)
    if context is None:
        return RunCode(code=code, language=_require_language(language), timeout_s=seconds)
    if language:
        raise CodeError("Give a language or a context, not both: a context already has a language.")
    return RunCode(code=code, context=require_context_name(context), timeout_s=seconds)


def _require_language(language: str | None) -> str:
    if not isinstance(language, str) or not language.strip():
        raise CodeError(
            f"Unsupported language: {language!r}.", hint="Give the name of a language, such as 'python', or a context."
        )
    return canonical_language(language)  # only the service knows which languages it can run


def read_code_result(reply: Reply[ToolReply]) -> EnhancedCodeExecutionResult:
    """Return what the code tool's reply says about the run.

    Raises:
        CodeError: If the tool could not run the code.
        ReplyError: If the text has no known form.
    """
    tool = reply.data_or_raise()
    value = _parse_object(tool.text)
    if value is not None and "result" not in value and (inner := _parse_object(_first_text(value))) is not None:
        value = {**inner, "isError": inner.get("isError") or value.get("isError")}
    if value is not None and isinstance(value.get("result"), list):
        return _read_wrapped_result(reply, value, tool)
    if value is not None and ("logs" in value or "results" in value):
        return _read_legacy_result(reply, value, tool)
    if tool.is_error or (value is not None and value.get("isError")):
        raise _not_run_error(reply, tool.text, value)
    text = tool.text if value is None else _first_text(value)
    if text is None:
        raise ReplyError("Unknown response format", action=reply.action, request_id=reply.request_id)
    shown = ExecutionResult(text=text, is_main_result=True, data={"text/plain": text})
    return EnhancedCodeExecutionResult(
        request_id=reply.request_id, success=True, logs=ExecutionLogs([text]), results=[shown]
    )


def _read_wrapped_result(
    reply: Reply[ToolReply], value: dict[str, Any], tool: ToolReply
) -> EnhancedCodeExecutionResult:
    """Read `{"result": [...], "stdout": [...], "stderr": [...], "executionError": ...}`."""
    logs = ExecutionLogs(_to_texts(value.get("stdout")), _to_texts(value.get("stderr")))
    structured = tool.structured_content or {}
    failed = tool.is_error or bool(value.get("isError"))
    error = read_error(value.get("executionError"), logs.stderr, failed, structured.get("error"))
    refused_hosts = read_refused_hosts(structured)
    return EnhancedCodeExecutionResult(
        request_id=reply.request_id,
        success=error is None,
        execution_count=_int_or_none(value.get("execution_count", value.get("executionCount"))),
        execution_time=_float_or_zero(value.get("execution_time", value.get("executionTime"))),
        logs=logs,
        results=[_read_item(item) for item in value["result"]],
        error=error,
        error_message="" if error is None else with_network_hint(format_error(error), refused_hosts),
        exception=_timeout_error(reply, error) if error is not None and structured.get("timedOut") else None,
        truncated=bool(structured.get("truncated")),
        refused_hosts=refused_hosts,
    )


def _read_legacy_result(reply: Reply[ToolReply], value: dict[str, Any], tool: ToolReply) -> EnhancedCodeExecutionResult:
    """Read the older `{"logs": {...}, "results": [...], "error": {...}}`."""
    written = value.get("logs")
    written = written if isinstance(written, dict) else {}
    logs = ExecutionLogs(_to_texts(written.get("stdout")), _to_texts(written.get("stderr")))
    failed = tool.is_error or bool(value.get("isError"))
    error = read_error(value.get("error"), logs.stderr, failed, None)
    shown = value.get("results")
    return EnhancedCodeExecutionResult(
        request_id=reply.request_id,
        success=error is None,
        execution_count=_int_or_none(value.get("execution_count")),
        execution_time=_float_or_zero(value.get("execution_time")),
        logs=logs,
        results=[_read_item(item) for item in shown] if isinstance(shown, list) else [],
        error=error,
        error_message="" if error is None else format_error(error),
    )


def _not_run_error(reply: Reply[ToolReply], text: str, value: dict[str, Any] | None) -> CodeError:
    message = text
    if value is not None and isinstance(value.get("content"), list):
        texts = [item.get("text") for item in value["content"] if isinstance(item, dict)]
        message = "Error in response: " + "; ".join(text for text in texts if isinstance(text, str))
    return CodeError(message or "Failed to run code", action=reply.action, request_id=reply.request_id)


def _timeout_error(reply: Reply[ToolReply], error: ExecutionError) -> CodeTimeoutError:
    return CodeTimeoutError(format_error(error), request_id=reply.request_id, hint="Give it a longer timeout.")


def format_error(error: ExecutionError) -> str:
    """Return an error in one line, as Python prints it: `Name: value`."""
    return f"{error.name}: {error.value}" if error.value else error.name


def read_error(reported: object, stderr: list[str], failed: bool, structured: object) -> ExecutionError | None:
    """Return the error of a run, or None if the run succeeded.

    It is looked for in the structured answer, then in the text, then on standard error.
    """
    if not reported and not failed:
        return None
    written = "".join(stderr)
    for found in (structured, reported):
        if isinstance(found, Mapping) and (found.get("name") or found.get("value")):
            fields = (found.get(key) for key in ("name", "value", "traceback"))
            name, value, traceback = (field if isinstance(field, str) else _to_text(field) for field in fields)
            return ExecutionError(name or "ExecutionError", value, traceback)
    text = _to_text(reported) or (written.strip().splitlines() or ["Failed to run code"])[-1]
    match = _ERROR_LINE.fullmatch(text)
    name, value = (match[1] or match[3], match[2] or "") if match else ("ExecutionError", text)
    return ExecutionError(name, value, written if "Traceback" in written else "")


def _read_item(item: object) -> ExecutionResult:
    """Read one result, which is an object, its JSON, or a bare text."""
    for _ in range(_MAX_JSON_NESTING):
        if not isinstance(item, str):
            break
        try:
            decoded = json.loads(item)
        except (ValueError, RecursionError):
            break
        if not isinstance(decoded, (str, dict)):
            break
        item = decoded
    return make_execution_result(item) if isinstance(item, dict) else _plain_result(item)


def _plain_result(item: object) -> ExecutionResult:
    text = str(item)
    return ExecutionResult(text=text, data={"text/plain": text})


def make_execution_result(item: Mapping[str, Any]) -> ExecutionResult:
    """Read one result by its MIME types or their short names."""
    keys = {**_TEXT_KEYS, "json": _JSON_KEYS, "chart": (*filter(VEGA_LITE_TYPE.fullmatch, item), "chart")}
    fields = {name: _first_value(item, of_field) for name, of_field in keys.items()}
    fields |= {name: _to_optional_text(fields[name]) for name in _TEXT_KEYS}
    main = item.get("isMainResult", item.get("is_main_result"))
    data = {key: value for key, value in item.items() if "/" in key}
    for name, of_field in keys.items():
        if fields[name] is not None and not any(key in data for key in of_field):
            data[MIME_TYPES[name]] = fields[name]
    return ExecutionResult(**fields, is_main_result=main is True, data=data)


def _first_value(item: Mapping[str, Any], keys: Iterable[str]) -> Any:
    return next((item[key] for key in keys if item.get(key) is not None), None)


def _to_optional_text(value: object) -> str | None:
    return None if value is None else _to_text(value)


def _to_text(value: object) -> str:
    """Return a value as text.

    A list of strings is joined, since notebooks store long text that way.
    """
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _to_texts(value: object) -> list[str]:
    if isinstance(value, list):
        return [_to_text(item) for item in value]
    return [_to_text(value)] if value else []


def _parse_object(text: object) -> dict[str, Any] | None:
    for _ in range(_MAX_JSON_NESTING):
        if not isinstance(text, str):
            break
        try:
            text = json.loads(text)
        except (ValueError, RecursionError):
            # Plain text, which is no envelope of a result.
            return None
    return text if isinstance(text, dict) else None


def _first_text(value: Mapping[str, Any]) -> str | None:
    content = value.get("content")
    first = content[0] if isinstance(content, list) and content else None
    text = first.get("text") if isinstance(first, dict) else None
    return text if isinstance(text, str) else None


def _int_or_none(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float_or_zero(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0
