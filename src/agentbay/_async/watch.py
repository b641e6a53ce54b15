"""Changes of files, as they happen."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING

from .._websocket import AsyncMailbox
from ..errors import FileError
from ..models.filesystem import FileChangeEvent

if TYPE_CHECKING:
    from .filesystem import AsyncFileSystem


class AsyncWatch:
    """The changes below a directory, one after the other; made by `file_system.watch()`.

    As a context manager it watches from the beginning of its block, otherwise from the first step of its iteration.
    What asks for changes of the same path by another way at the same time takes them away from here.
    """

    def __init__(self, files: AsyncFileSystem, path: str, interval: float) -> None:
        self._files, self._path, self._interval = files, path, interval
        self._pending: deque[FileChangeEvent] = deque()
        self._stopped: AsyncMailbox[None] = AsyncMailbox()
        self._started = False

    async def start(self) -> None:
        """Begin to watch: what happens from now on will be told. Calling it again does nothing.

        Raises:
            FileError: If there is no such directory.
        """
        if not self._started:
            await self._ask()
            self._started = True

    def stop(self) -> None:
        """End the iteration, also one that waits."""
        self._stopped.put(None)

    async def __aenter__(self) -> AsyncWatch:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __aiter__(self) -> AsyncWatch:
        return self

    async def __anext__(self) -> FileChangeEvent:
        await self.start()
        while not self._pending:
            try:
                await self._stopped.take(self._interval)
            except TimeoutError:
                self._pending.extend(await self._ask())
            else:
                self._stopped.put(None)  # for the next step, which is the end too
                raise StopAsyncIteration
        return self._pending.popleft()

    async def _ask(self) -> list[FileChangeEvent]:
        result = await self._files._get_file_change(self._path)
        if not result:
            raise result.exception or FileError(result.error_message)
        return result.events
