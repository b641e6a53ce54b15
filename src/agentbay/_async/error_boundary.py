"""The error boundary of public methods, which turns raised errors into failed results.

Inside the package code raises. What a caller gets, a failed result or the error itself, is decided here alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from .._arguments import ArgumentCheck
from .._concurrency import AsyncMethod
from .._transport.failed_result import is_unanswered_or_http_error, make_failed_result
from ..errors import AgentBayError, ClientClosedError
from ..models.base import BaseResult


class HasStrict(Protocol):
    """An object whose client may have been made with `strict=True`."""

    @property
    def strict(self) -> bool:
        """Whether a failed operation raises instead of returning a failed result."""
        ...


P = ParamSpec("P")
OwnerT = TypeVar("OwnerT", bound=HasStrict)
ResultT = TypeVar("ResultT")
FailedT = TypeVar("FailedT", bound=BaseResult)


def fold_error(owner: HasStrict, result: type[FailedT], error: AgentBayError, **values: Any) -> FailedT:
    """Return the failed `result` that carries an error.

    Args:
        owner: If its client is strict, the error is raised instead.
        result: Class of the result.
        error: The error. A closed client is a fault of the program, so `ClientClosedError` is always raised.
        **values: Further fields of the result.

    Raises:
        AgentBayError: The error itself, as said above.
    """
    if owner.strict or isinstance(error, ClientClosedError):
        raise error
    return make_failed_result(result, error, **values)


def folded(
    result: type[BaseResult] | None,
    *,
    only: tuple[type[AgentBayError], ...] = (AgentBayError,),
    unless_http_error: bool = False,
    **values: object,
) -> Callable[[AsyncMethod[OwnerT, P, ResultT]], AsyncMethod[OwnerT, P, ResultT]]:
    """Decorate a method so that it returns a failed `result` instead of raising `AgentBayError`.

    Its arguments are checked inside the boundary, so that a wrong one is a failed result too.

    Args:
        result: Class of the failed result; None makes the method return None.
        only: Errors of these classes become results; others are raised, as the contract of some methods says.
        unless_http_error: Raise if the service answered with an HTTP error or not at all.
        **values: Further fields of the failed result.
    """

    def decorate(method: AsyncMethod[OwnerT, P, ResultT]) -> AsyncMethod[OwnerT, P, ResultT]:
        check = ArgumentCheck(method)

        @wraps(method)
        async def boundary(self: OwnerT, /, *args: P.args, **kwargs: P.kwargs) -> ResultT:
            try:
                # Inside the `try`, so that a wrong argument becomes a failed result like any other failure.
                check(args, kwargs)
                value = await method(self, *args, **kwargs)
            except AgentBayError as error:
                if not isinstance(error, only) or (unless_http_error and is_unanswered_or_http_error(error)):
                    raise
                failed = fold_error(self, result or BaseResult, error, **values)
                # The method says which result it returns, also where `result` is generic.
                return cast(ResultT, failed if result is not None else None)
            if self.strict and isinstance(value, BaseResult) and value.exception is not None:
                raise value.exception  # such as a command that ran out of time, whose output is kept
            return value

        boundary.argument_check = check  # type: ignore[attr-defined]
        return boundary

    return decorate
