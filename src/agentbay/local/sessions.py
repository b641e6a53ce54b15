"""The sessions there are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentbay._wire.sessions import SessionDetail
from agentbay.local.kernels.table import Kernels
from agentbay.local.kernels.warm import WarmPython
from agentbay.local.lifetime import Lifetime
from agentbay.local.network.policy import Networks
from agentbay.local.records import Records
from agentbay.local.refusals import broken, no_space, session_not_found, shutting_down, too_many_sessions
from agentbay.local.sandbox.host import Limits, SandboxError, SandboxHost, SandboxSpec
from agentbay.local.session import Session, State, make_id
from agentbay.local.state_dir import StateDirectory, erase

if TYPE_CHECKING:
    from agentbay.local.contexts.bindings import SessionContexts

_logger = logging.getLogger(__name__)

_PATIENCE = 0.25  # seconds that a deletion may hold its answer, which spares the client a second question
_TICK = 0.05  # seconds between two looks at a session that is about to be released


class SessionTable:
    """Makes sessions, finds them and ends them.

    Args:
        limits: Of each session.
        most: Sessions at a time; None is no limit.
        networks: What networks they can have.
    """

    def __init__(
        self,
        host: SandboxHost,
        state_dir: StateDirectory,
        limits: Limits | None = None,
        most: int | None = None,
        *,
        networks: Networks,
    ) -> None:
        self._host, self._state_dir, self._networks = host, state_dir, networks
        self._limits, self._most = limits or Limits(), most
        self._records = Records(state_dir.path / "sessions.db", durable=not state_dir.temporary)
        self._sessions: dict[str, Session] = {}
        self._being_made = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._python = WarmPython()

    @property
    def isolation(self) -> str:
        """What keeps sessions apart; see `SandboxHost`."""
        return self._host.isolation

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
        """Describe a session, also while it is deleted and for a day after; one of an earlier runtime has ended."""
        if session_id in self._sessions:
            return self._sessions[session_id].detail()
        if ended := self._records.ended(session_id):
            return ended
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
        """Make a session; on failure or cancellation nothing of it is left.

        Raises:
            QuotaExceededError: There are as many as there may be.
            ServerError: It could not be made.
        """
        if self._closing:
            raise shutting_down()
        if self._most is not None and len(self._sessions) + self._being_made >= self._most:
            raise too_many_sessions(self._most)
        self._being_made += 1
        try:
            session = await self._make(image_id=image_id, labels=labels, lifetime=lifetime, contexts=contexts, **facts)
        finally:
            self._being_made -= 1
        if self._python.ready and image_id.startswith("code"):
            self._spawn(session.prepare_code("python"))
        self._spawn(self._watch(session))
        self._schedule(session)
        _logger.info("created %s", session.session_id)
        return session

    async def _make(self, *, image_id: str, contexts: SessionContexts, **facts: Any) -> Session:
        if image_id.startswith("code"):
            self._python.begin()
        session_id = make_id("session-", 21)
        try:
            directory = self._state_dir.new_session(session_id)
        except OSError as error:
            raise no_space(error) from error
        kernels = Kernels(python=self._python.start)
        session = Session(directory=directory, session_id=session_id, image_id=image_id, kernels=kernels, **facts)
        try:
            session.contexts = contexts
            binds = await contexts.prepare(session_id, directory)
            network = self._networks.choose(session.policy_id)
            env = await self._networks.environment(network)
            spec = SandboxSpec(root=directory, binds=binds, limits=self._limits, network=network, env=env)
            sandbox = await self._host.create(spec)
            listener = sandbox.take_listener()
            session.start(sandbox, self._networks.open(listener) if listener else None)
            await contexts.start(sandbox)
            if self._closing:
                raise shutting_down()
            session.number = self._records.add(session)
        except BaseException as error:
            self._spawn(self._release(session))
            if isinstance(error, SandboxError):
                raise broken(f"The session could not be made: {error}") from error
            raise
        self._sessions[session_id] = session
        return session

    def set_labels(self, session: Session, labels: Mapping[str, str]) -> None:
        """Replace the labels of a session."""
        self._records.set_labels(session.session_id, labels)
        session.labels = dict(labels)

    async def pause(self, session: Session) -> None:
        """Freeze a session; it is done, or goes on, even if the client does not wait."""
        session.move(State.PAUSING)
        await asyncio.shield(self._spawn(self._settle(session, session.pause)))

    async def resume(self, session: Session) -> None:
        """Thaw a session."""
        session.move(State.RESUMING)
        await asyncio.shield(self._spawn(self._settle(session, session.resume)))

    async def delete(self, session: Session) -> None:
        """Begin to end a session, paused or not; mostly it has ended when this returns, which takes milliseconds."""
        await asyncio.wait({self._begin_end(session, "")}, timeout=_PATIENCE)

    def forsake(self, session_id: str) -> None:
        """Begin to end a session that its client has not waited for."""
        self._begin_end(self.find(session_id), "Its client went away before it was ready.")

    def begin_close(self) -> None:
        """Take no more calls; what is under way goes on."""
        self._closing = True

    async def close(self) -> None:
        """Make no more sessions and end all there are."""
        self.begin_close()
        for session in self.matching(lambda _: True):
            self._begin_end(session, "The runtime was stopped.")
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._python.close()
        self._records.close()

    async def _settle(self, session: Session, change: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await change()
        finally:
            if session.known:
                self._records.note(session)

    def _begin_end(self, session: Session, reason: str) -> asyncio.Task[None]:
        session.move(State.DELETING)
        session.end_reason = reason
        self._records.note(session)
        return self._spawn(self._end(session))

    async def _end(self, session: Session) -> None:
        await self._release(session)
        session.move(State.FINISH)
        del self._sessions[session.session_id]
        self._records.note(session)
        _logger.info("ended %s", session.session_id)

    async def _release(self, session: Session) -> None:
        if session.contexts is not None:
            await session.contexts.finish(self._host.create)
        await self._abandon(session)

    async def _abandon(self, session: Session) -> None:
        await session.kill()
        try:
            discarded = self._state_dir.throw_away(session.directory)
        except OSError as error:
            _logger.warning("files of %s are left: %s", session.session_id, error)
        else:
            self._spawn(self._erase(discarded))

    async def _erase(self, directory: Path) -> None:
        try:
            await asyncio.to_thread(erase, directory)
        except OSError as error:
            _logger.warning("%s is left: %s", directory, error)

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
