"""Strict conversion between JSON values and Python objects."""

from __future__ import annotations

from typing import Any, TypeVar

_T = TypeVar("_T")


class MalformedError(ValueError):
    """A value does not have the shape that its field requires.

    Attributes:
        problem: What is wrong, without the value, which may be secret.
        field: Where, by names on the wire: `Data.Contexts[1].id`, or "" for a text that is no JSON object at all.
    """

    def __init__(self, problem: str, field: str = "") -> None:
        super().__init__(problem, field)
        self.problem = problem
        self.field = field

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}" if self.field else self.problem


def structure(value: object, kind: type[_T] | Any, path: str = "Data") -> _T:
    """Read a JSON value as an object of a type.

    Unknown keys are ignored, and null counts as absent.

    Raises:
        MalformedError: If a value has another type; names its place, which starts at `path`.
    """
    # Imported with the first value, since cattrs takes as long to import as the rest of the package.
    from .cattrs_hooks import converter, first_problem

    try:
        return converter.structure(value, kind)  # type: ignore[no-any-return]
    except (ExceptionGroup, AttributeError, TypeError, ValueError, KeyError, RecursionError) as error:
        problem, field = first_problem(error, path)
        raise MalformedError(problem, field) from error


def unstructure(value: object) -> Any:
    """Write an object as a JSON value, without what is None."""
    from .cattrs_hooks import converter

    return converter.unstructure(value)
