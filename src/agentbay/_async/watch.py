"""Changes of files as they happen."""

from __future__ import annotations

import contextlib
import logging
import math
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .._handles import Handle
from .._transport.deadline import Deadline
from .._transport.subscription import Subscription, drop_redundant_modifies
from .._websocket import AsyncQueue
from .._wire.tools import GetFileChange
from ..errors import AgentBayError, FileError
from ..models.filesystem import FileChangeEvent
from .ws_client import Listener

if TYPE_CHECKING:
    from .filesystem import AsyncFileSystem
    from .ws_client import AsyncReconnectingWebSocket

_SUBSCRIBE_TIMEOUT_SECONDS = 15.0  # for the service to subscribe or refuse
_WATCH_RETRY_SECONDS = 120.0  # seconds for which a lost connection is tried again
_MAX_UNREAD_CHANGES = 100_000  # changes kept for a reader who does not read
_logger = logging.getLogger("agentbay")


class AsyncWatch(Handle):
    """The changes below a directory, as an iterator.

    Made by `file_system.watch()`. As a context manager it watches from the beginning of its block to its end, otherwise
    from the first step of its iteration until `stop()`. The service pushes changes; while it does not, they are polled.
    """

    _instead = "Send its changes instead."

    def __init__(self, files: AsyncFileSystem, path: str, interval: float) -> None:
        self._files, self._interval = files, interval
        self._subscription = Subscription(path)
        self._queue: AsyncQueue[list[FileChangeEvent] | AgentBayError | None] = AsyncQueue()
        self._pending: deque[FileChangeEvent] = deque()
        # each is counted by one side alone, so no lock is needed
        self._pushed_count = self._consumed_count = 0
        self._is_started = self._is_subscribed = self._is_closed = False
        self._next_poll, self._retry_deadline = Deadline(interval), Deadline(_WATCH_RETRY_SECONDS)
        self._remove_listener: Callable[[], None] = _no_op

    async def start(self) -> None:
        """Begin to watch.

        Changes from now on will be reported. Calling it again does nothing.

        Raises:
            FileError: If there is no such directory.
        """
        if self._is_started:
            return
        try:
            await self._try_subscribe()
            if not self._subscription.is_numbered:
                await self._fetch_changes()  # these changes are older than the watch
        except BaseException:
            await self._close()
            raise
        self._is_started, self._next_poll = True, Deadline(self._interval)

    def stop(self) -> None:
        """End the iteration, also one that waits."""
        self._queue.put(None)

    async def __aenter__(self) -> AsyncWatch:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        await self._close()

    def __aiter__(self) -> AsyncWatch:
        return self

    async def __anext__(self) -> FileChangeEvent:
        await self.start()
        while not self._pending:
            found = await self._next_batch()
            if found is None:
                raise StopAsyncIteration
            self._pending.extend(drop_redundant_modifies(found))
        return self._pending.popleft()

    async def _next_batch(self, within: float = math.inf) -> list[FileChangeEvent] | None:
        """Return the next changes, or None at the end.

        The list is empty if nothing has changed within so many seconds.
        """
        wait = math.inf if self._is_subscribed else max(self._next_poll.remaining(), 0.0)
        try:
            found = await self._queue.get(min(wait, within))
        except TimeoutError:
            return [] if within < wait else await self._poll()
        if found is None:
            self._queue.put(None)  # for the next step, which must end too
            await self._close()
        elif isinstance(found, AgentBayError):
            raise found
        else:
            self._consumed_count += len(found)
        return found

    async def _try_subscribe(self) -> None:
        """Subscribe to pushed changes, if the service offers that."""
        try:
            websocket = await self._websocket()
            # Before the request, because changes can be pushed before its answer is read.
            self._remove_listener = websocket.add_listener(
                Listener(self._target, self._on_push, self._on_lost, self._subscribe)
            )
            await self._subscribe()
        except AgentBayError as error:
            _logger.debug("Changes of %s are asked for, not pushed: %s", self._subscription.path, error)
            self._remove_listener()

    async def _subscribe(self) -> None:
        """Subscribe, also after the connection was lost and made again."""
        asked, answered = self._subscription.subscribe_request(), self._subscription.on_answer
        try:
            await (await self._websocket()).call(self._target, asked, Deadline(_SUBSCRIBE_TIMEOUT_SECONDS), answered)
        except FileError as error:
            self._queue.put(error)
        self._is_subscribed = True
        if self._is_closed:  # meanwhile
            await self._close()
        # A service without numbers cannot send again what happened while the connection was away, so one poll fetches
        # it.
        elif self._is_started and not self._subscription.is_numbered:
            self._enqueue(await self._fetch_changes())

    async def _close(self) -> None:
        self._is_closed = True
        self._remove_listener()
        if self._is_subscribed:
            self._is_subscribed = False
            with contextlib.suppress(AgentBayError):  # a service that is gone needs no notice
                await (await self._websocket()).send(self._target, self._subscription.unsubscribe_request())

    async def _websocket(self) -> AsyncReconnectingWebSocket:
        return await self._files.session.ws.websocket()

    @property
    def _target(self) -> str:
        listed = (tool.server for tool in self._files.session.mcpTools if tool.name == GetFileChange.tool)
        return next(listed, "") or GetFileChange.server

    def _on_push(self, data: dict[str, Any]) -> None:
        if found := self._subscription.read_changes_of(data):
            self._enqueue(found)

    def _on_lost(self, error: AgentBayError) -> None:
        self._is_subscribed, self._retry_deadline = False, Deadline(_WATCH_RETRY_SECONDS)
        self._enqueue([])  # wakes the reader, which polls from now on

    def _enqueue(self, found: list[FileChangeEvent]) -> None:
        self._pushed_count += len(found)
        # Dropping single changes would leave the reader with a wrong picture, so the watch ends with an error.
        if self._pushed_count - self._consumed_count > _MAX_UNREAD_CHANGES:
            self._remove_listener()
            path = self._subscription.path
            why = f"Changes below {path} are lost: more than {_MAX_UNREAD_CHANGES} were waiting to be read."
            self._queue.put(FileError(why, hint="End a watch that is not needed any more with stop()."))
            return
        self._queue.put(found)

    async def _poll(self) -> list[FileChangeEvent]:
        try:
            found = await self._fetch_changes()
        except AgentBayError as error:
            if not error.retryable or self._retry_deadline.remaining() <= 0:
                raise
            found = []
        else:
            self._retry_deadline = Deadline(_WATCH_RETRY_SECONDS)
        self._next_poll = Deadline(self._interval)
        return found

    async def _fetch_changes(self) -> list[FileChangeEvent]:
        result = await self._files._get_file_change(self._subscription.path)
        if not result:
            raise result.exception or FileError(result.error_message)
        return result.events


def _no_op() -> None:
    return
