"""The sessions there are."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from agentbay._wire.sessions import SessionDetail
from agentbay.local.kernels.table import Kernels
from agentbay.local.kernels.warm import WarmPython
from agentbay.local.lifetime import Lifetime
from agentbay.local.refusals import broken, session_not_found, shutting_down
from agentbay.local.sandbox.host import SandboxError, SandboxHost, SandboxSpec
from agentbay.local.session import Session, State, make_id
from agentbay.local.state_dir import StateDirectory

if TYPE_CHECKING:
    from agentbay.local.contexts.bindings import SessionContexts

_logger = logging.getLogger(__name__)

_REMEMBERED = 300.0  # seconds for which an ended session is still known as such; clients ask once a second
_PATIENCE = 0.25  # seconds that a deletion may hold its answer, which spares the client a second question
_TICK = 0.05  # seconds between two looks at a session that is about to be released


class SessionTable:
    """Makes sessions, finds them and ends them."""

    def __init__(self, host: SandboxHost, state_dir: StateDirectory) -> None:
        self._host, self._state_dir = host, state_dir
        self._sessions: dict[str, Session] = {}
        self._ended: dict[str, tuple[float, SessionDetail]] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._python = WarmPython()

    @property
    def closing(self) -> bool:
        """Whether the runtime is about to end."""
        return self._closing

    def find(self, session_id: str) -> Session:
        """Return a session that can be used.

        Raises:
            SessionNotFoundError: There is none, or no longer.
        """
        session = self._sessions.get(session_id)
        if session is None or not session.known:
            raise session_not_found()
        return session

    def detail(self, session_id: str) -> SessionDetail:
        """Describe a session, also while it is deleted and for some minutes after."""
        if session_id in self._sessions:
            return self._sessions[session_id].detail()
        if session_id in self._ended:
            return self._ended[session_id][1]
        raise session_not_found()

    def matching(self, condition: Callable[[Session], bool]) -> list[Session]:
        """Return the sessions that can be used and meet the condition, in the order of their creation."""
        return [session for session in self._sessions.values() if session.known and condition(session)]

    async def create(
        self,
        *,
        image_id: str,
        labels: Mapping[str, str],
        lifetime: Lifetime,
        contexts: SessionContexts,
        **facts: str,
    ) -> Session:
        """Make a session; on failure or cancellation nothing of it is left."""
        if self._closing:
            raise shutting_down()
        if image_id.startswith("code"):
            self._python.begin()
        session_id = make_id("session-", 21)
        session = Session(
            number=next(self._numbers),
            directory=self._state_dir.new_session(session_id),
            session_id=session_id,
            image_id=image_id,
            labels=labels,
            lifetime=lifetime,
            kernels=Kernels(python=self._python.start),
            **facts,
        )
        try:
            session.contexts = contexts
            spec = SandboxSpec(root=session.directory, binds=await contexts.prepare(session_id, session.directory))
            sandbox = await self._host.create(spec)
            session.start(sandbox)
            await contexts.start(sandbox)
            if self._closing:
                raise shutting_down()
        except BaseException as error:
            self._spawn(self._release(session))
            if isinstance(error, SandboxError):
                raise broken(f"The session could not be made: {error}") from error
            raise
        self._sessions[session_id] = session
        if self._python.ready and image_id.startswith("code"):
            self._spawn(session.prepare_code("python"))
        self._spawn(self._watch(session))
        self._schedule(session)
        _logger.info("created %s", session_id)
        return session

    async def pause(self, session: Session) -> None:
        """Freeze a session; it is done, or goes on, even if the client does not wait."""
        session.move(State.PAUSING)
        await asyncio.shield(self._spawn(session.pause()))

    async def resume(self, session: Session) -> None:
        """Thaw a session."""
        session.move(State.RESUMING)
        await asyncio.shield(self._spawn(session.resume()))

    async def delete(self, session: Session) -> None:
        """Begin to end a session, paused or not; mostly it has ended when this returns, which takes milliseconds."""
        await asyncio.wait({self._begin_end(session, "")}, timeout=_PATIENCE)

    async def close(self) -> None:
        """Make no more sessions and end all there are."""
        self._closing = True
        for session in self.matching(lambda _: True):
            self._begin_end(session, "The runtime was stopped.")
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._python.close()

    def _begin_end(self, session: Session, reason: str) -> asyncio.Task[None]:
        session.move(State.DELETING)
        session.end_reason = reason
        return self._spawn(self._end(session))

    async def _end(self, session: Session) -> None:
        await self._release(session)
        session.move(State.FINISH)
        del self._sessions[session.session_id]
        self._remember(session)
        _logger.info("ended %s", session.session_id)

    async def _release(self, session: Session) -> None:
        if session.contexts is not None:
            await session.contexts.finish(self._host.create)
        await self._abandon(session)

    async def _abandon(self, session: Session) -> None:
        await session.kill()
        try:
            await self._state_dir.discard(session.directory)
        except OSError as error:
            _logger.warning("files of %s are left: %s", session.session_id, error)

    def _remember(self, session: Session) -> None:
        now = time.monotonic()
        while self._ended and now - next(iter(self._ended.values()))[0] > _REMEMBERED:
            del self._ended[next(iter(self._ended))]
        self._ended[session.session_id] = (now, session.detail())

    async def _watch(self, session: Session) -> None:
        await session.wait_killed()
        if session.known:
            _logger.warning("%s: its first process died", session.session_id)
            self._begin_end(session, "The first process of the session died.")

    def _schedule(self, session: Session) -> None:
        left = session.remaining()
        if left is not None:
            asyncio.get_running_loop().call_later(max(left, _TICK), self._release_if_due, session)

    def _release_if_due(self, session: Session) -> None:
        left = session.remaining()
        if not session.known or self._closing:
            return
        if left is not None and left <= 0:
            self._begin_end(session, "Its time was up.")
        else:
            self._schedule(session)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
