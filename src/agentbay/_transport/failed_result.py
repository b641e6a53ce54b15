"""A raised error as the result that the public contract wants."""

from __future__ import annotations

from typing import Any, TypeVar

from attrs import fields_dict

from ..errors import AgentBayError, APIError, ReplyError, TransportError
from ..models.base import BaseResult

ResultT = TypeVar("ResultT", bound=BaseResult)


def is_http_error(error: AgentBayError) -> bool:
    """Whether no answer came, or one that is an error by its HTTP status or cannot be understood."""
    if isinstance(error, APIError):
        return error.status_code is not None and error.status_code >= 400
    return isinstance(error, (TransportError, ReplyError))


def make_failed_result(result: type[ResultT], error: AgentBayError, **values: Any) -> ResultT:
    """Make the failed result that carries an error; `values` are further fields of it."""
    told: dict[str, Any] = {
        "success": False,
        "request_id": error.request_id,
        "error_message": str(error),
        "exception": error,
        "code": error.code,
        "message": error.message.removeprefix(f"[{error.code}] "),
        "http_status_code": error.status_code or 0,
    }
    known = fields_dict(result)
    return result(**{name: value for name, value in {**told, **values}.items() if name in known})
