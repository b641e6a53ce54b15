"""What a browser operator is asked for, and what it found."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from .._lazy_attrs import define

SchemaT = TypeVar("SchemaT")


@define(slots=False)
class ActOptions:
    """An action on a page, in words.

    Attributes:
        action: What to do, such as "click the login button".
        variables: Values for `%name%` in the action, which the model does not see.
        use_vision: Let the model look at a screenshot.
        timeout: Seconds that it may take; None means 300.
    """

    action: str
    variables: dict[str, str] | None = None
    use_vision: bool | None = None
    timeout: int | None = None


@define(slots=False)
class ActResult:
    """Outcome of an action."""

    success: bool
    message: str


@define(slots=False)
class ObserveOptions:
    """What to look for on a page, in words.

    `timeout` is seconds, None means 300.
    """

    instruction: str
    use_vision: bool | None = None
    selector: str | None = None
    timeout: int | None = None


@define(slots=False)
class ObserveResult:
    """An element that was found, and what can be done with it."""

    selector: str
    description: str
    method: str
    arguments: dict[str, Any] | str


@define(slots=False)
class ExtractOptions(Generic[SchemaT]):
    """What to read from a page.

    Attributes:
        instruction: What to read, in words.
        schema: A pydantic model; the result is one.
        use_text_extract: Read the text of the page instead of its elements.
        use_vision: Let the model look at a screenshot.
        selector: Only in this part of the page.
        timeout: Seconds that it may take; None means 300.
        max_page: How many pages of a list to read.
    """

    instruction: str
    schema: type[SchemaT]
    use_text_extract: bool | None = None
    use_vision: bool | None = None
    selector: str | None = None
    timeout: int | None = None
    max_page: int | None = 1
