"""The thread that watches a directory: one and the same, over the synchronous flavour, for both."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import SessionNotFoundError
from ..models.filesystem import FileChangeEvent, FileChangeResult

if TYPE_CHECKING:
    from .session import AsyncSession

_log = logging.getLogger("agentbay")


class WatchThread(threading.Thread):
    """Asks for changes at intervals and tells a function of them, until it is stopped or the session is gone.

    Attributes:
        stop_event: Set it to end the thread.
        ready_event: Set when the state is known that changes are told against.
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
        self._session, self._path, self._callback, self._interval = session, path, callback, interval

    def run(self) -> None:
        """Watch."""
        from .._sync.callbacks import call_back

        bay, session = _twin(self._session)
        with bay:
            self._look(session)
            self.ready_event.set()
            while not self.stop_event.wait(self._interval):
                result = self._look(session)
                if result.events and not self.stop_event.is_set():
                    call_back(self._callback, result.events)

    def _look(self, session: Any) -> FileChangeResult:
        result: FileChangeResult = session.file_system._get_file_change(self._path)
        if isinstance(result.exception, SessionNotFoundError):
            self.stop_event.set()
        elif not result:
            _log.warning("Cannot tell the changes of %s: %s", self._path, result.error_message)
        return result


def _twin(session: AsyncSession) -> tuple[Any, Any]:
    """Make a synchronous client and session that are the same, with connections of their own."""
    from .._sync.client import AgentBay
    from .._sync.session import Session

    bay = AgentBay.__new__(AgentBay)
    session.agent_bay.client.lend(bay)
    twin = Session(bay, session.session_id)
    twin.link_url, twin.token, twin.mcpTools = session.link_url, session.token, list(session.mcpTools)
    return bay, twin
