"""A session for a `with` block."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from .session import AsyncSession


class AsyncSessionBlock:
    """A context manager that creates a session, and deletes it on exit."""

    def __init__(self, block: AbstractAsyncContextManager[AsyncSession, bool | None]) -> None:
        self._block = block

    async def __aenter__(self) -> AsyncSession:
        return await self._block.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._block.__aexit__(kind, error, traceback)

    if not TYPE_CHECKING:  # which would take any attribute for granted

        def __getattr__(self, name: str) -> NoReturn:
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            if not name.startswith("_"):
                message += ": the session is there inside of its block, `with bay.session() as session:`"
            raise AttributeError(message, name=name, obj=self)
