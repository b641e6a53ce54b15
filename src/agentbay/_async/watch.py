"""Changes of files, as they happen."""

from __future__ import annotations

import contextlib
import logging
import math
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .._transport.deadline import Deadline
from .._transport.watch import Subscription, without_echoes
from .._websocket import AsyncMailbox
from .._wire.tools import GetFileChange
from ..errors import AgentBayError, FileError
from ..models.filesystem import FileChangeEvent
from .ws import Listener

if TYPE_CHECKING:
    from .filesystem import AsyncFileSystem
    from .ws import AsyncLink

_SUBSCRIBING = 15.0  # seconds that a service may take to begin or refuse
_PATIENCE = 120.0  # seconds for which a lost connection is tried again
_UNREAD = 100_000  # changes that are kept for who does not ask for them
_log = logging.getLogger("agentbay")


class AsyncWatch:
    """The changes below a directory, one after the other; made by `file_system.watch()`.

    As a context manager it watches from the beginning of its block to its end, otherwise from the first step of its
    iteration until `stop()`. The service pushes what happens; as long as it does not, it is asked at intervals.
    """

    def __init__(self, files: AsyncFileSystem, path: str, interval: float) -> None:
        self._files, self._interval = files, interval
        self._subscription = Subscription(path)
        self._arrived: AsyncMailbox[list[FileChangeEvent] | AgentBayError | None] = AsyncMailbox()
        self._pending: deque[FileChangeEvent] = deque()
        self._in = self._out = 0  # changes that were pushed and taken; each is counted by one side alone
        self._started = self._pushed = self._over = False
        self._due, self._patience = Deadline(interval), Deadline(_PATIENCE)
        self._unlisten: Callable[[], None] = _nothing

    async def start(self) -> None:
        """Begin to watch: what happens from now on will be told. Calling it again does nothing.

        Raises:
            FileError: If there is no such directory.
        """
        if self._started:
            return
        try:
            await self._listen()
            if not self._subscription.numbered:
                await self._ask()  # what it tells has happened before
        except BaseException:
            await self._end()
            raise
        self._started, self._due = True, Deadline(self._interval)

    def stop(self) -> None:
        """End the iteration, also one that waits."""
        self._arrived.put(None)

    async def __aenter__(self) -> AsyncWatch:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        await self._end()

    def __aiter__(self) -> AsyncWatch:
        return self

    async def __anext__(self) -> FileChangeEvent:
        await self.start()
        while not self._pending:
            found = await self.take()
            if found is None:
                raise StopAsyncIteration
            self._pending.extend(without_echoes(found))
        return self._pending.popleft()

    async def take(self, within: float = math.inf) -> list[FileChangeEvent] | None:
        """Return what has changed, nothing if nothing has within so many seconds, None at the end; for this package."""
        wait = math.inf if self._pushed else max(self._due.remaining(), 0.0)
        try:
            found = await self._arrived.take(min(wait, within))
        except TimeoutError:
            return [] if within < wait else await self._poll()
        if found is None:
            self._arrived.put(None)  # for the next step, which is the end too
            await self._end()
        elif isinstance(found, AgentBayError):
            raise found
        else:
            self._out += len(found)
        return found

    # ── Pushed ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _listen(self) -> None:
        """Have changes pushed, if the service does that."""
        try:
            link = await self._link()
            self._unlisten = link.listen(Listener(self._target, self._on_push, self._on_lost, self._subscribe))
            await self._subscribe()
        except AgentBayError as error:
            _log.debug("Changes of %s are asked for, not pushed: %s", self._subscription.path, error)
            self._unlisten()

    async def _subscribe(self) -> None:
        """Subscribe, also when the connection was lost and is there again."""
        asked, answered = self._subscription.beginning(), self._subscription.begin
        try:
            await (await self._link()).call(self._target, asked, Deadline(_SUBSCRIBING), answered)
        except FileError as error:
            self._arrived.put(error)
        self._pushed = True
        if self._over:  # since it was begun
            await self._end()
        elif self._started and not self._subscription.numbered:
            self._put(await self._ask())

    async def _end(self) -> None:
        self._over = True
        self._unlisten()
        if self._pushed:
            self._pushed = False
            with contextlib.suppress(AgentBayError):  # whoever is not there any more needs not be told
                await (await self._link()).send(self._target, self._subscription.ending())

    async def _link(self) -> AsyncLink:
        return await self._files.session.ws.link()

    @property
    def _target(self) -> str:
        listed = (tool.server for tool in self._files.session.mcpTools if tool.name == GetFileChange.tool)
        return next(listed, "") or GetFileChange.server

    def _on_push(self, data: dict[str, Any]) -> None:
        if found := self._subscription.read(data):
            self._put(found)

    def _on_lost(self, error: AgentBayError) -> None:
        self._pushed, self._patience = False, Deadline(_PATIENCE)
        self._put([])  # so that who waits does so at intervals from now on

    def _put(self, found: list[FileChangeEvent]) -> None:
        self._in += len(found)
        if self._in - self._out > _UNREAD:
            self._unlisten()
            why = f"Changes below {self._subscription.path} are lost: more than {_UNREAD} were not asked for."
            self._arrived.put(FileError(why, hint="End a watch that is not needed any more with stop()."))
            return
        self._arrived.put(found)

    # ── Asked for ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _poll(self) -> list[FileChangeEvent]:
        try:
            found = await self._ask()
        except AgentBayError as error:
            if not error.retryable or self._patience.remaining() <= 0:
                raise
            found = []
        else:
            self._patience = Deadline(_PATIENCE)
        self._due = Deadline(self._interval)
        return found

    async def _ask(self) -> list[FileChangeEvent]:
        result = await self._files._get_file_change(self._subscription.path)
        if not result:
            raise result.exception or FileError(result.error_message)
        return result.events


def _nothing() -> None:
    return
