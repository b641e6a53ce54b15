"""A memory budget for request bodies that have not shown a valid key yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agentbay.local.api_errors import too_many_bodies
from agentbay.local.http.asgi import Request

_FREE_BYTES = 1 << 16  # of each body, beside the budget
_BUDGET_BYTES = 64 << 20  # of all such bodies together; as much as one body may have
_BEGINNING_BYTES = 1 << 16  # of a body, in which the key is looked for


class BodyBudget:
    """Limits what clients without a key can make the service hold in memory.

    Small bodies are free, and so are those that show the key at their beginning. A client that puts the key behind a
    large field still gets through, as long as no others use up the budget.
    """

    def __init__(self, has_valid_secret: Callable[[Request, bytes], bool]) -> None:
        self._has_valid_secret = has_valid_secret
        self._used = 0

    @contextmanager
    def watch(self, request: Request) -> Iterator[Callable[[bytearray], None]]:
        """Yield a function that checks a body while it arrives, and may raise."""
        reserved, checked, authenticated = 0, False, False

        def on_chunk(body: bytearray) -> None:
            nonlocal reserved, checked, authenticated
            if len(body) <= _FREE_BYTES or authenticated:
                return
            # Searched once for each body: otherwise a client could make every small chunk cost a search of 64 KiB.
            if not checked:
                checked, authenticated = True, self._has_valid_secret(request, bytes(body[:_BEGINNING_BYTES]))
                if authenticated:
                    return
            more = len(body) - reserved
            if self._used + more > _BUDGET_BYTES:
                raise too_many_bodies()
            self._used += more
            reserved += more

        try:
            yield on_chunk
        finally:
            self._used -= reserved
