"""The thread that watches a directory.

Both flavours run it over the synchronous one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import AgentBayError, SessionNotFoundError
from ..models.filesystem import FileChangeEvent

if TYPE_CHECKING:
    from .session import AsyncSession

_STOP_CHECK_SECONDS = 0.5  # longest time between two checks of the stop event
_logger = logging.getLogger("agentbay")


class WatchThread(threading.Thread):
    """Calls a function with changes until stopped or the session is gone.

    Attributes:
        stop_event: Set it to end the thread.
        ready_event: Set when the initial state is known, from which changes are reported.
    """

    def __init__(
        self,
        session: AsyncSession,
        path: str,
        callback: Callable[[list[FileChangeEvent]], object],
        interval: float,
        stop_event: threading.Event | None,
    ) -> None:
        super().__init__(name=f"DirectoryWatcher-{path}", daemon=True)
        self.stop_event = stop_event or threading.Event()
        self.ready_event = threading.Event()
        # Connections of the asynchronous flavour belong to their event loop, so this thread needs its own.
        self._bay, self._session = _clone_as_sync(session)
        self._path, self._callback, self._interval = path, callback, interval

    def run(self) -> None:
        """Watch."""
        with self._bay:
            while not self.stop_event.is_set():
                try:
                    with self._session.file_system.watch(self._path, interval=self._interval) as watch:
                        self.ready_event.set()
                        self._deliver_changes(watch)
                except SessionNotFoundError:
                    self.stop_event.set()
                except AgentBayError as error:
                    _logger.warning("Cannot tell the changes of %s: %s", self._path, error)
                    self.stop_event.wait(self._interval)
                self.ready_event.set()  # also if the directory does not exist yet

    def _deliver_changes(self, watch: Any) -> None:
        from .._sync.callbacks import invoke_callback

        while not self.stop_event.is_set():
            # A short wait, because a thread that waits for changes cannot wait for the user's event as well.
            found = watch._next_batch(min(self._interval, _STOP_CHECK_SECONDS))
            if found and not self.stop_event.is_set():
                invoke_callback(self._callback, found)


def _clone_as_sync(session: AsyncSession) -> tuple[Any, Any]:
    """Make a synchronous client and session with connections of their own."""
    from .._sync.client import AgentBay
    from .._sync.session import Session

    bay = AgentBay.__new__(AgentBay)
    session.agent_bay.client.configure_clone(bay)
    twin = Session(bay, session.session_id)
    twin.link_url, twin.ws_url, twin.token = session.link_url, session.ws_url, session.token
    twin.mcpTools = list(session.mcpTools)
    return bay, twin
