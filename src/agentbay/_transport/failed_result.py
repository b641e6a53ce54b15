"""Turn a raised error into the failed result of a method."""

from __future__ import annotations

from typing import Any, TypeVar

from attrs import fields_dict

from ..errors import AgentBayError, APIError, ReplyError, TransportError
from ..models.base import BaseResult

ResultT = TypeVar("ResultT", bound=BaseResult)


def is_unanswered_or_http_error(error: AgentBayError) -> bool:
    """Return whether a request got an HTTP error status or no readable answer."""
    if isinstance(error, APIError):
        return error.status_code is not None and error.status_code >= 400
    return isinstance(error, (TransportError, ReplyError))


def make_failed_result(result: type[ResultT], error: AgentBayError, **values: Any) -> ResultT:
    """Return the failed result for an error.

    Args:
        result: The result class.
        error: The error, which the result carries as `exception`.
        **values: Further fields of the result.
    """
    fields: dict[str, Any] = {
        "success": False,
        "request_id": error.request_id,
        "error_message": str(error),
        "exception": error,
        "code": error.code,
        "message": error.message.removeprefix(f"[{error.code}] "),
        "http_status_code": error.status_code or 0,
    }
    known = fields_dict(result)
    return result(**{name: value for name, value in {**fields, **values}.items() if name in known})
