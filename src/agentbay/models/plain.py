"""Results as dicts, lists and plain values."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

import attrs

from ..errors import AgentBayError

_ERROR_FIELDS = ("message", "hint", "code", "status_code", "request_id", "retryable")


def to_plain(value: Any) -> Any:
    """Return a value that `json.dumps` accepts."""
    if isinstance(value, Enum):
        return to_plain(value.value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        # JSON cannot hold the lone surrogates of a path that is not UTF-8 (PEP 383).
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(to_plain(name)): to_plain(item) for name, item in value.items()}
    if isinstance(value, AgentBayError):
        return {"type": type(value).__name__} | {name: getattr(value, name) for name in _ERROR_FIELDS}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(item) for item in value]
    if attrs.has(type(value)):
        return _fields_of(value)
    # A session or another handle is written as its session id.
    return {"session_id": value.session_id} if hasattr(value, "session_id") else str(value)


def _fields_of(value: Any) -> dict[str, Any]:
    plain = {field.name: to_plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
    error = plain.pop("exception", None)
    return plain if error is None else {**plain, "error": error}
