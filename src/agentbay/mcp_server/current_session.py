"""The session that the tools of one server share."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import TracebackType

import anyio

from agentbay import AsyncAgentBay, AsyncSession, CreateSessionParams
from agentbay.errors import AgentBayError, NotFoundError

_DELETE_SECONDS = 30.0


class CurrentSession:
    """The session of a server, from its first call to its end.

    Args:
        bay: The client that makes it.
        params: How it is made.
        session_id: A session that is there already, and stays; "" makes one.
        guarded: Whether another process must delete it if this one is killed. A private runtime ends with its client,
            and its sessions with it.
    """

    def __init__(self, bay: AsyncAgentBay, params: CreateSessionParams, session_id: str, *, guarded: bool) -> None:
        self.bay = bay
        self._params, self._session_id, self._guarded = params, session_id, guarded
        self._session: AsyncSession | None = None
        self._guard: subprocess.Popen[str] | None = None
        self._lock = asyncio.Lock()

    async def get(self) -> AsyncSession:
        """Return the session, which the first call makes.

        Raises:
            AgentBayError: There is no such session, or none could be made.
        """
        async with self._lock:
            if self._session is not None:
                return self._session
            if self._session_id:
                self._session = (await self.bay.get(self._session_id)).unwrap().session
                return self._session
            # A cancelled call must not lose a session whose id is still on its way.
            session: AsyncSession | None = None
            with anyio.CancelScope(shield=True):
                session = await self._create()
            assert session is not None  # nothing cancels a shielded call
            return session

    def forget(self) -> bool:
        """Drop the ended session, and return whether a new one may be made."""
        self._session = None
        self._dismiss_guard()
        return not self._session_id

    async def __aenter__(self) -> CurrentSession:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self.close()

    async def close(self) -> None:
        """Delete the session if this server has made it."""
        session, self._session = self._session, None
        if session is None or self._session_id:
            return
        with anyio.move_on_after(_DELETE_SECONDS):
            try:
                deleted = await session.delete()
            except AgentBayError as error:
                print(f"agentbay mcp: {error}", file=sys.stderr)  # noqa: T201  # standard output belongs to the protocol
                return  # the guard may have more luck
            if deleted.success or isinstance(deleted.exception, NotFoundError):
                self._dismiss_guard()

    async def _create(self) -> AsyncSession:
        session = self._session = (await self.bay.create(self._params)).unwrap().session
        self._start_guard(session.session_id)
        return session

    def _start_guard(self, session_id: str) -> None:
        """Start the process that deletes the session if this one is killed."""
        if not self._guarded:
            return
        self._guard = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.guard", session_id],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # whatever ends this process's group must not end the guard too
        )

    def _dismiss_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.communicate("deleted\n")
