"""Turn the bytes of an answer into a value or a typed error.

This is the only reader of the RPC envelope.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar

from attrs import frozen

from .._wire.converter import MalformedError, structure
from .._wire.raw_calls import CONTENT_TYPE, RESULT_HEADER
from .._wire.schema import Action, caller_names, data_type
from .._wire.tools import ToolReply
from ..errors import (
    APIError,
    AuthenticationError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    ReplyError,
    ServerError,
    ServiceUnavailableError,
    SessionNotFoundError,
)

DataT = TypeVar("DataT")
_SUCCESS_CODES = frozenset({"", "ok", "200", "success"})


class HttpAnswer(NamedTuple):
    """An HTTP answer, with header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    label: str


@frozen(kw_only=True)
class Reply(Generic[DataT]):
    """A successful answer, whose `data` is None if it carries none."""

    action: str
    data: DataT | None
    request_id: str = ""
    code: str = ""
    message: str = ""
    next_token: str = ""
    max_results: int = 0
    total_count: int = 0
    count: int = 0
    content: bytes = b""  # of a call with raw bytes

    def data_or_raise(self) -> DataT:
        """Return the data.

        Raises:
            ReplyError: If the answer carries none.
        """
        if self.data is None:
            raise ReplyError(
                f"The answer to {self.action} says that it succeeded, but carries no data.",
                action=self.action,
                request_id=self.request_id,
            )
        return self.data


def read_reply(action: Action[DataT], answer: HttpAnswer) -> Reply[DataT]:
    """Read the answer to an action.

    Raises:
        APIError: If the service refused or failed. Its class follows from the code, or else from the HTTP status.
        ReplyError: If the answer cannot be understood.
    """
    body = _json_object(answer)
    code, message, request_id = _text_field(body, "Code"), _text_field(body, "Message"), _text_field(body, "RequestId")
    if answer.status >= 400 or _is_refusal(body, code):
        raise make_api_error(answer, code, _use_caller_names(action, message), request_id)
    success = body.get("Success")
    is_implied = success is None and (action.spec.missing_success_is_success or body.get("Data") is not None)
    if _parse_bool(success) is None and not is_implied:
        raise _unreadable_error(answer, "it does not say whether the request succeeded", request_id)
    return Reply(
        action=action.spec.name,
        data=_read_data(action, answer, body, request_id),
        request_id=request_id,
        code=code,
        message=message,
        next_token=_text_field(body, "NextToken"),
        max_results=_number_field(body, "MaxResults"),
        total_count=_number_field(body, "TotalCount"),
        count=_number_field(body, "Count"),
    )


def _use_caller_names(action: Action[Any], message: str) -> str:
    """Name the caller's parameters instead of the wire's fields in a message.

    A field's name of one word counts only before a colon, since it may be an ordinary word.
    """
    for wire, caller in caller_names(type(action)).items():
        is_one_word = sum(character.isupper() for character in wire) == 1
        message = re.sub(rf"\b{wire}\b{'(?=:)' if is_one_word else ''}", caller, message)
    return message


def read_direct_reply(answer: HttpAnswer, request_id: str) -> Reply[ToolReply]:
    """Read the answer to a tool call that went to the session's own link.

    Raises:
        APIError: If the HTTP status is an error.
        ReplyError: If the answer cannot be understood.
    """
    if is_raw_answer(answer.status, answer.headers):
        described = ToolReply(content=[{"type": "text", "text": answer.headers.get(RESULT_HEADER, "")}])
        return Reply(action=answer.label, data=described, request_id=request_id, content=answer.body)
    body = _json_object(answer)
    if not 200 <= answer.status < 300:
        raise make_api_error(answer, _text_field(body, "Code"), _text_field(body, "Message"), request_id, _TOKEN_HINT)
    data = _parse_nested_json(body.get("data"))
    if data is None:
        raise _unreadable_error(answer, "it has no `data`", request_id)
    result = data.get("result", {}) if isinstance(data, dict) else None
    if not isinstance(result, dict):
        raise _unreadable_error(answer, "its `data` has no `result`", request_id)
    tool_reply: ToolReply = _structure_or_raise(answer, result, ToolReply, request_id)
    return Reply(action=answer.label, data=tool_reply, request_id=request_id)


def is_raw_answer(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether the body of an answer is a tool's raw bytes."""
    return status == 200 and headers.get("content-type", "") == CONTENT_TYPE


def _json_object(answer: HttpAnswer) -> dict[str, Any]:
    # Following a redirect would send the API key, or the token of the session, to another host.
    if 300 <= answer.status < 400:
        raise _unreadable_error(answer, "it is a redirect, and redirects are not followed: is the endpoint right?")
    try:
        body = json.loads(answer.body)
    # RecursionError: deeply nested JSON exhausts the stack of the parser.
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict):
        return body
    if answer.status >= 400:
        raise make_api_error(answer, "", "", "")
    raise _unreadable_error(answer, f"its {len(answer.body)} bytes are not a JSON object")


def _is_refusal(body: Mapping[str, Any], code: str) -> bool:
    success = _parse_bool(body.get("Success"))
    return code.lower() not in _SUCCESS_CODES if success is None else not success


def _parse_bool(value: object) -> bool | None:
    """Return a truth value, also one written as text, or None for anything else."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def _read_data(action: Action[DataT], answer: HttpAnswer, body: Mapping[str, Any], request_id: str) -> DataT | None:
    kind = data_type(type(action))
    data = body.get("Data")
    if kind is type(None) or data is None or data == "":
        return None
    structured: DataT = _structure_or_raise(answer, _parse_nested_json(data), kind, request_id)
    return structured


def _structure_or_raise(answer: HttpAnswer, value: object, kind: Any, request_id: str) -> Any:
    try:
        return structure(value, kind)
    except MalformedError as error:
        raise _unreadable_error(answer, str(error), request_id) from error


def _parse_nested_json(value: object) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _unreadable_error(answer: HttpAnswer, why: str, request_id: str = "") -> ReplyError:
    return ReplyError(
        f"The answer to {answer.label} (HTTP {answer.status}) cannot be understood: {why}.",
        action=answer.label,
        request_id=request_id,
        status_code=answer.status,
    )


def _text_field(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key, body.get(key[0].lower() + key[1:]))
    return str(value) if isinstance(value, (str, int, float)) else ""


def _number_field(body: Mapping[str, Any], key: str) -> int:
    value = body.get(key)
    return value if isinstance(value, int) else 0


_BY_CODE: dict[str, type[APIError]] = {
    "InvalidMcpSession.NotFound": SessionNotFoundError,
    "SessionNotFound": SessionNotFoundError,
    "InvalidAction.NotFound": InvalidRequestError,  # the action does not exist, not the thing that it is about
    "NOT_LOGIN": AuthenticationError,
    "PARAM_ERROR": InvalidRequestError,
    "InvalidPort": InvalidRequestError,
    "PathAlreadyBound": ConflictError,
    "ServiceUnavailable": ServiceUnavailableError,
}
# Suffixes go before prefixes, since a code such as InvalidSession.NotFound has one of each.
_BY_SUFFIX: dict[str, type[APIError]] = {"NotFound": NotFoundError, "NotExist": NotFoundError}
_BY_PREFIX: dict[str, type[APIError]] = {
    "Throttling": RateLimitError,
    "Quota": QuotaExceededError,  # QuotaExceeded.*, QuotaExceed.*
    "InvalidAccessKey": AuthenticationError,
    "Unauthorized": AuthenticationError,
    "Forbidden": PermissionDeniedError,
    "NoPermission": PermissionDeniedError,
    "IncorrectStatus": ConflictError,
    "InvalidParameter": InvalidRequestError,
    "MissingParameter": InvalidRequestError,
    "Invalid": InvalidRequestError,
}
_BY_STATUS: dict[int, type[APIError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: InvalidRequestError,
    429: RateLimitError,
    503: ServiceUnavailableError,
}
_KEY_HINT = "Check the API key, and that it belongs to the region of this client."
_TOKEN_HINT = "The session's own token is no longer accepted: get the session again with get()."


def make_api_error(answer: HttpAnswer, code: str, message: str, request_id: str, hint: str = _KEY_HINT) -> APIError:
    kind = api_error_class(answer, code)
    what = message or f"The service answered {answer.label} with HTTP {answer.status}"
    return kind(
        f"[{code}] {what}" if code else what,
        answer.status,
        action=answer.label,
        code=code,
        request_id=request_id,
        hint=hint if kind is AuthenticationError else "",
        retry_after=_parse_retry_after(answer.headers),
    )


def api_error_class(answer: HttpAnswer, code: str) -> type[APIError]:
    if "x-acs-retry-after" in answer.headers and answer.status >= 400:
        return RateLimitError
    if code in _BY_CODE:
        return _BY_CODE[code]
    for table, matches in ((_BY_SUFFIX, code.endswith), (_BY_PREFIX, code.startswith)):
        for part, kind in table.items():
            if matches(part):
                return kind
    if answer.status in _BY_STATUS:
        return _BY_STATUS[answer.status]
    return ServerError if answer.status >= 500 else APIError


def _parse_retry_after(headers: Mapping[str, str]) -> float | None:
    # Retry-After is a number of seconds, or an HTTP date.
    text = headers.get("x-acs-retry-after") or headers.get("retry-after")
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        from email.utils import parsedate_to_datetime  # few services write a date
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:  # a date with the zone -0000
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
