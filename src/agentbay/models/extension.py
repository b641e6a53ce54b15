"""Browser extensions, kept in a context."""

from __future__ import annotations

from .._lazy_attrs import define


@define(slots=False)
class Extension:
    """A browser extension.

    `created_at` is the service's text, None if it sends none.
    """

    id: str
    name: str
    created_at: str | None = None
