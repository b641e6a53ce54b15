"""Python objects from and to what JSON carries, strictly: nothing is turned into what it is not."""

from __future__ import annotations

from typing import Any, TypeVar

_T = TypeVar("_T")


class MalformedError(ValueError):
    """A value does not have the shape that its field wants."""


def structure(value: object, kind: type[_T] | Any, path: str = "Data") -> _T:
    """Read a JSON value as an object of that type. Unknown keys are ignored, null is as good as absent.

    Raises:
        Malformed: If a value has another type; names the place, starting at `path`.
    """
    from .cattrs_hooks import (
        converter,
        describe_error,
    )  # here, since cattrs takes as long to import as the rest of the package

    try:
        return converter.structure(value, kind)  # type: ignore[no-any-return]
    except (ExceptionGroup, AttributeError, TypeError, ValueError, KeyError) as error:
        raise MalformedError(describe_error(error, path)) from error


def unstructure(value: object) -> Any:
    """Write an object as a JSON value; None is left out."""
    from .cattrs_hooks import converter

    return converter.unstructure(value)
