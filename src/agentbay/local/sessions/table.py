"""The table of all sessions of a runtime."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from agentbay._wire.sessions import SessionDetail
from agentbay.errors import SessionNotFoundError
from agentbay.local.agent.session_agent import ModelSettings
from agentbay.local.api_errors import session_not_found, shutting_down, too_many_sessions
from agentbay.local.images.store import ImageStore
from agentbay.local.network.provider import NetworkProvider
from agentbay.local.sandbox.service.manager import Limits, Sandbox, SandboxManager, SandboxSpec
from agentbay.local.sessions.creation import SessionMaker, SessionRequest
from agentbay.local.sessions.lifecycle import SessionState
from agentbay.local.sessions.records import SessionRecords
from agentbay.local.sessions.session import Session
from agentbay.local.sessions.time_limits import TimeLimits
from agentbay.local.state_dir import StateDirectory, remove_tree

_logger = logging.getLogger(__name__)

_DELETE_WAIT_SECONDS = 0.25  # a deletion that ends in this time is answered as done: the client need not ask again
_MIN_EXPIRY_CHECK_SECONDS = 0.05  # between two checks of a session that is about to expire


class SessionTable:
    """Creates, finds and deletes sessions.

    Args:
        sandboxes: Makes the sandbox of each session.
        limits: The limits of each session.
        max_sessions: How many sessions there may be at a time; None is no limit.
        networks: The networks that sessions can have.
        images: Keeps the layers that sessions use.
        model: The model that carries out tasks; None if there is none.
        start_ahead: Whether browsers and desktops are started before sessions ask for them.
    """

    def __init__(
        self,
        sandboxes: SandboxManager,
        state_dir: StateDirectory,
        limits: Limits | None = None,
        max_sessions: int | None = None,
        *,
        networks: NetworkProvider,
        images: ImageStore,
        model: ModelSettings | None = None,
        start_ahead: bool = False,
    ) -> None:
        self._sandboxes, self._state_dir, self._images = sandboxes, state_dir, images
        self._max_sessions = max_sessions
        self._records = SessionRecords(state_dir.path / "sessions.db", durable=not state_dir.temporary)
        self._sessions: dict[str, Session] = {}
        self._creating_count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._maker = SessionMaker(
            sandboxes,
            state_dir,
            limits or Limits(),
            networks=networks,
            images=images,
            model=model,
            start_ahead=start_ahead,
            start_task=self.start_task,
        )

    @property
    def isolation(self) -> str:
        """The isolation mode of the sandboxes."""
        return self._sandboxes.isolation

    @property
    def sandboxes(self) -> SandboxManager:
        """The manager that makes the sandboxes."""
        return self._sandboxes

    @property
    def closing(self) -> bool:
        """Whether the runtime is shutting down."""
        return self._closing

    def find(self, session_id: str) -> Session:
        """Return a session that can be used.

        Raises:
            SessionNotFoundError: There is no such session, or it has ended.
        """
        session = self._sessions.get(session_id)
        if session is None or not session.lifecycle.is_live:
            raise session_not_found()
        return session

    def detail(self, session_id: str) -> SessionDetail:
        """Describe a session, also while it is deleted and for a day after.

        Raises:
            SessionNotFoundError: There is no such session.
        """
        if session_id in self._sessions:
            return self._sessions[session_id].detail()
        if ended := self._records.find_ended(session_id):
            return ended
        raise session_not_found()

    def matching(self, condition: Callable[[Session], bool]) -> list[Session]:
        """Return the usable sessions that meet the condition, by creation."""
        return [session for session in self._sessions.values() if session.lifecycle.is_live and condition(session)]

    async def create(self, request: SessionRequest) -> Session:
        """Create a session.

        On failure or cancellation nothing of it is left.

        Raises:
            InvalidRequestError: An option cannot be given.
            QuotaExceededError: There are as many sessions as there may be.
            ServerError: It could not be created.
        """
        if self._closing:
            raise shutting_down()
        if self._max_sessions is not None and len(self._sessions) + self._creating_count >= self._max_sessions:
            raise too_many_sessions(self._max_sessions)
        # Counted before the first await, or calls at the same time would all find room for one more session.
        self._creating_count += 1
        try:
            session = await self._make(request)
        finally:
            self._creating_count -= 1
        self._maker.prepare_ahead(session, request)
        self.start_task(self._delete_when_sandbox_dies(session))
        self._schedule_expiry(session)
        _logger.info("created %s", session.session_id)
        return session

    async def _make(self, request: SessionRequest) -> Session:
        session = await self._maker.begin(request)
        try:
            await self._maker.set_up(session, request)
            # close() has listed the sessions to delete already, and would miss this one.
            if self._closing:
                raise shutting_down()
            session.creation_number = self._records.add(session)
        except BaseException:
            # A client that disconnects cancels the creation, which must not leave anything either.
            self.start_task(self._dispose(session))
            raise
        self._sessions[session.session_id] = session
        return session

    def set_labels(self, session: Session, labels: Mapping[str, str]) -> None:
        """Replace the labels of a session, in memory and on disk."""
        # On disk first: if the disk is full, this raises, and memory stays as it was.
        self._records.set_labels(session.session_id, labels)
        session.labels = dict(labels)

    def change_time_limits(self, session: Session, time_limits: TimeLimits) -> None:
        """Change when a session ends by itself."""
        session.lifecycle.change_time_limits(time_limits)
        self._schedule_expiry(session)

    async def pause(self, session: Session) -> None:
        """Freeze a session, even if the client does not wait for it."""
        session.lifecycle.transition_to(SessionState.PAUSING)
        # Without the shield, a disconnect could cancel the freezing half-way, and the state would be PAUSED all the
        # same.
        await asyncio.shield(self.start_task(self._run_and_record(session, session.pause)))

    async def resume(self, session: Session) -> None:
        """Thaw a session, even if the client does not wait for it."""
        session.lifecycle.transition_to(SessionState.RESUMING)
        await asyncio.shield(self.start_task(self._run_and_record(session, session.resume)))

    async def delete(self, session: Session) -> None:
        """Begin to delete a session, paused or not.

        Mostly it has ended when this returns, since that takes milliseconds.
        """
        await asyncio.wait({self._start_deleting(session, "")}, timeout=_DELETE_WAIT_SECONDS)

    @asynccontextmanager
    async def deleted_on_failure(self, session: Session) -> AsyncIterator[None]:
        """Delete a new session, whose client never learns its id, if the block fails."""
        try:
            yield
        except BaseException:
            if session.lifecycle.is_live:  # otherwise it ends already
                await self.delete(session)
            raise

    def delete_undelivered(self, session_ids: Iterable[str]) -> None:
        """Begin to delete sessions whose client disconnected before they were ready."""
        for session_id in session_ids:
            with suppress(SessionNotFoundError):  # somebody has deleted it meanwhile
                self._start_deleting(self.find(session_id), "Its client went away before it was ready.")

    def begin_close(self) -> None:
        """Accept no more calls, and let those under way continue."""
        self._closing = True

    async def close(self) -> None:
        """Create no more sessions, and delete all there are."""
        self.begin_close()
        self._maker.stop_preparing()
        for session in self.matching(lambda _: True):
            self._start_deleting(session, "The runtime was stopped.")
        # In a loop, since tasks start further ones, such as the removal of files.
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._maker.close()
        self._records.close()

    async def _run_and_record(self, session: Session, change: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await change()
        finally:
            if session.lifecycle.is_live:
                self._records.save_state(session)

    def _start_deleting(self, session: Session, reason: str) -> asyncio.Task[None]:
        session.lifecycle.transition_to(SessionState.DELETING)
        session.end_reason = reason
        self._records.save_state(session)
        return self.start_task(self._finish_deleting(session))

    async def _finish_deleting(self, session: Session) -> None:
        await self._dispose(session)
        session.lifecycle.transition_to(SessionState.FINISH)
        del self._sessions[session.session_id]
        self._records.save_state(session)
        _logger.info("ended %s", session.session_id)

    async def _dispose(self, session: Session) -> None:
        """Upload the contexts, kill every process, and remove the files in the background."""
        if session.contexts is not None:
            try:
                if session.contexts.bindings:
                    await session.save_browser_profile()
                await session.contexts.finish(partial(self._remake_sandbox, session))
            except Exception:  # whatever fails there, the session must end
                _logger.exception("%s: its contexts could not be released", session.session_id)
        await session.dispose()
        self._images.release(session.kept_layers)
        self.remove_directory_later(session.directory)

    async def _remake_sandbox(self, session: Session, spec: SandboxSpec) -> Sandbox:
        """Create a sandbox with the files of a session."""
        if session.spec is not None and session.is_layered:
            layers = self._images.layer_paths(session.layers)
            if session.spec.image:
                root = replace(session.spec.image, layers=layers)
                spec = replace(session.spec, image=root, network="none", binds=spec.binds)
            else:
                spec = replace(spec, layers=layers)
        return await self._sandboxes.create(spec)

    def remove_directory_later(self, directory: Path) -> None:
        """Move a directory out of the way, and remove it in the background."""
        try:
            trash = self._state_dir.move_to_trash(directory)
        except OSError as error:
            _logger.warning("%s is left: %s", directory.name, error.strerror)
        else:
            self.start_task(self._remove_files(trash))

    async def _remove_files(self, directory: Path) -> None:
        try:
            await asyncio.to_thread(remove_tree, directory)
        except OSError as error:
            _logger.warning("%s is left: %s", directory.name, error.strerror)

    async def _delete_when_sandbox_dies(self, session: Session) -> None:
        await session.sandbox.wait_closed()
        if session.lifecycle.is_live:
            _logger.warning("%s: its first process died", session.session_id)
            self._start_deleting(session, "The first process of the session died.")

    def _schedule_expiry(self, session: Session) -> None:
        if session.expiry_timer is not None:
            session.expiry_timer.cancel()
        left = session.lifecycle.seconds_until_expiry()
        if left is not None:
            session.expiry_timer = asyncio.get_running_loop().call_later(
                max(left, _MIN_EXPIRY_CHECK_SECONDS), self._delete_if_expired, session
            )

    def _delete_if_expired(self, session: Session) -> None:
        left = session.lifecycle.seconds_until_expiry()
        if not session.lifecycle.is_live or self._closing:
            return
        # Activity only notes its time and moves no timer, so the session may have some time left.
        if left is not None and left <= 0:
            self._start_deleting(session, "Its time was up.")
        else:
            self._schedule_expiry(session)

    def start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a background task, for which the end of the runtime waits."""
        task = asyncio.create_task(work)
        # The event loop itself holds tasks by weak references only.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
