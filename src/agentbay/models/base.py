"""What every result has in common."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from attrs import define, field

from ..errors import AgentBayError

_R = TypeVar("_R", bound="BaseResult")
_URL = re.compile(r"\b([a-z]+://)(?:[^\s/@'\"]*@)?([^\s/'\"?#]+)[^\s'\"]*")


def redacted_repr(value: object) -> str:
    """Show a value without what a URL may carry beside its host: tokens, signatures, passwords."""
    return _URL.sub(r"\1\2/…", repr(value))


def list_or_empty(value: list[Any] | None) -> list[Any]:
    """None stands for an empty list."""
    return [] if value is None else value


def dict_or_empty(value: dict[str, Any] | None) -> dict[str, Any]:
    """None stands for an empty dict."""
    return {} if value is None else value


@define(slots=False)
class ApiResponse:
    """Base of everything the service answers.

    Attributes:
        request_id: The service's id of the request; quote it when you report a problem. "" if no answer came.
    """

    request_id: str = ""

    def get_request_id(self) -> str:
        """Return `request_id`."""
        return self.request_id


class _ExceptionSlot:
    """Keeps `exception` out of `__dict__`, which programs write as JSON."""

    __slots__ = ("exception",)


@define(slots=False)
class BaseResult(ApiResponse, _ExceptionSlot):
    """Outcome of one operation. A failure is a flag here, not a raise; `unwrap()` turns it back into one.

    Attributes:
        success: Whether the operation did what it was asked to. `bool(result)` is the same.
        error_message: What went wrong, or "". A refusal of the service reads `[Code] Message`.
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
        """Show in a notebook what was found, or what went wrong; None leaves it to `repr`."""
        if self.success:
            return self._success_html()
        from .. import _html

        hint = self.exception.hint if self.exception is not None else ""
        return _html.failure(self.error_message or "", hint, self.request_id)

    def _success_html(self) -> str | None:
        """The HTML of a result that succeeded."""
        return None


@define(slots=False)
class OperationResult(BaseResult):
    """Outcome of an operation whose answer is one value, `data`.

    Attributes:
        data: The value, of the type its method names; None on failure.
        code: The service's error code, or "".
        message: The service's own words, or "".
        http_status_code: HTTP status of a refusal, or 0.
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
    """Outcome of an operation that either happened (`data` is True) or did not."""

    data: bool | None = None
    error_message: str = ""
