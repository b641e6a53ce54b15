"""The public door: inside, code raises; here an error becomes the result that the contract wants."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, Protocol, TypeVar, cast

from .._concurrency import AsyncMethod
from .._transport.failed_result import is_http_error, make_failed_result
from ..errors import AgentBayError, ClientClosedError
from ..models.base import BaseResult


class HasStrict(Protocol):
    """Whatever knows whether its client was made with `strict=True`."""

    @property
    def strict(self) -> bool:
        """Whether a failed operation raises instead of returning a failed result."""
        ...


P = ParamSpec("P")
OwnerT = TypeVar("OwnerT", bound=HasStrict)
ResultT = TypeVar("ResultT")


def folded(
    result: type[BaseResult], *, unless_http_error: bool = False, **values: object
) -> Callable[[AsyncMethod[OwnerT, P, ResultT]], AsyncMethod[OwnerT, P, ResultT]]:
    """Make a method return a failed `result` where it would raise an `AgentBayError`, unless its client is strict.

    `values` are further fields of the failed result. With `unless_http_error` it raises all the same if the service
    answered with an HTTP error or not at all: the contract of some methods turns only ordinary answers into results.
    """

    def decorate(method: AsyncMethod[OwnerT, P, ResultT]) -> AsyncMethod[OwnerT, P, ResultT]:
        @wraps(method)
        async def door(self: OwnerT, /, *args: P.args, **kwargs: P.kwargs) -> ResultT:
            try:
                return await method(self, *args, **kwargs)
            except ClientClosedError:
                raise
            except AgentBayError as error:
                if self.strict or (unless_http_error and is_http_error(error)):
                    raise
                # The method says which result it returns, also where `result` is generic.
                return cast(ResultT, make_failed_result(result, error, **values))

        return door

    return decorate
