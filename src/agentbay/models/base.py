"""The base classes of all results."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from .._lazy_attrs import define, field
from ..errors import AgentBayError

_R = TypeVar("_R", bound="BaseResult")
ItemT = TypeVar("ItemT")
_URL = re.compile(r"\b([a-z]+://)(?:[^\s/@'\"]*@)?([^\s/'\"?#]+)[^\s'\"]*")


def redacted_repr(value: object) -> str:
    """Return the repr of a value, with URLs cut after their host.

    Credentials, paths and queries of URLs carry tokens, signatures and passwords.
    """
    return _URL.sub(r"\1\2/…", repr(value))


def list_or_empty(value: list[Any] | None) -> list[Any]:
    """Convert None to an empty list."""
    return [] if value is None else value


def dict_or_empty(value: dict[str, Any] | None) -> dict[str, Any]:
    """Convert None to an empty dict."""
    return {} if value is None else value


@define(slots=False)
class ApiResponse:
    """Base class of all answers of the service.

    Attributes:
        request_id: Id that the service gave the request, to quote in a problem report; "" if no answer came.
    """

    request_id: str = ""

    def get_request_id(self) -> str:
        """Return `request_id`."""
        return self.request_id

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as dicts, lists and plain values.

        Bytes become base64, times ISO 8601, sessions their id. A failed result has the key `error` too. URLs and tokens
        in the result are in the dict as well.
        """
        from .plain import to_plain

        return to_plain(self)  # type: ignore[no-any-return]

    def to_json(self, indent: int | None = None) -> str:
        """Return `to_dict()` as JSON.

        Args:
            indent: Spaces for each level; None is one line.
        """
        import json

        return json.dumps(self.to_dict(), ensure_ascii=False, indent=indent)


class _ExceptionSlot:
    """Store `exception` in a slot, outside `__dict__`, which programs write as JSON."""

    __slots__ = ("exception",)


@define(slots=False)
class BaseResult(ApiResponse, _ExceptionSlot):
    """Outcome of one operation: failures are flagged, not raised.

    `unwrap()` raises the error behind a failure.

    Attributes:
        success: Whether the operation succeeded; `bool(result)` is the same.
        error_message: What went wrong, or "". A refusal by the service has the form `[Code] Message`.
        exception: The typed error behind a failure, or None. Keyword only.
    """

    success: bool = False
    error_message: str = ""
    exception: AgentBayError | None = field(default=None, kw_only=True, eq=False, repr=False)

    def __bool__(self) -> bool:
        return self.success

    def unwrap(self: _R) -> _R:
        """Return the result itself if it succeeded.

        Raises:
            AgentBayError: `exception`, if the operation failed.
        """
        if self.success:
            return self
        raise self.exception or AgentBayError(self.error_message or None, request_id=self.request_id)

    def _repr_html_(self) -> str | None:
        """Return the HTML that a notebook shows, or None to use `repr`."""
        if self.success:
            return self._success_html()
        from .. import _html

        hint = self.exception.hint if self.exception is not None else ""
        return _html.failure(self.error_message or "", hint, self.request_id)

    def _success_html(self) -> str | None:
        """Return the HTML of a successful result, or None to use `repr`."""
        return None


class IterableResult(Generic[ItemT]):
    """Gives a result that holds a list its length and iteration."""

    _LIST_FIELD = ""

    def __iter__(self) -> Iterator[ItemT]:
        items: list[ItemT] = getattr(self, self._LIST_FIELD)
        return iter(items)

    def __len__(self) -> int:
        return len(getattr(self, self._LIST_FIELD))


@define(slots=False)
class OperationResult(BaseResult):
    """Outcome of an operation that returns one value, `data`.

    Attributes:
        data: The value; its type is documented at the method. None on failure.
        code: Error code of the service, or "".
        message: Message of the service, or "".
        http_status_code: HTTP status of the refusal, or 0.
    """

    data: Any = field(default=None, repr=redacted_repr)
    error_message: str = ""
    code: str = ""
    message: str = ""
    http_status_code: int = 0

    def _success_html(self) -> str | None:
        from .. import _html

        if isinstance(self.data, dict):
            return _html.fact_table(
                "", {str(name): _URL.sub(r"\1\2/…", str(value)) for name, value in self.data.items()}
            )
        show = getattr(self.data, "_repr_html_", None)
        return str(show()) if show is not None else None


@define(slots=False)
class BoolResult(BaseResult):
    """Outcome of an operation without a value.

    `data` is True on success.
    """

    data: bool | None = None
    error_message: str = ""
