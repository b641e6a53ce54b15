"""OpenAI Agents: a sandbox client whose sandboxes are sessions."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import uuid
from typing import Any

from agentbay import AsyncAgentBay, AsyncSession
from agentbay.errors import NotFoundError
from agentbay.integrations import make_async_client, missing

try:
    from agents.sandbox.manifest import Manifest
    from agents.sandbox.session import Dependencies, Instrumentation, SandboxSession, SandboxSessionState
    from agents.sandbox.session.sandbox_client import BaseSandboxClient
    from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec, resolve_snapshot

    from agentbay.integrations._openai_agents_session import (
        AgentBaySandboxClientOptions,
        AgentBaySandboxSession,
        AgentBaySandboxSessionState,
        make_session,
    )
except ImportError as error:
    raise missing("openai_agents", error) from error

__all__ = ["AgentBaySandboxClient", "AgentBaySandboxClientOptions", "AgentBaySandboxSession"]


class AgentBaySandboxClient(BaseSandboxClient[AgentBaySandboxClientOptions | None]):
    """Makes a session for each sandbox.

    Without a client of its own, it uses the service that the environment names, or a private runtime on this machine,
    which ends with `aclose()` or the program.
    """

    backend_id = "agentbay"
    supports_default_options = True

    def __init__(
        self,
        bay: AsyncAgentBay | None = None,
        *,
        instrumentation: Instrumentation | None = None,
        dependencies: Dependencies | None = None,
    ) -> None:
        # Closing a client that shares another's connections does nothing.
        self._bay = bay.with_options(strict=False) if bay else make_async_client()
        self._instrumentation, self._dependencies = instrumentation or Instrumentation(), dependencies

    async def __aenter__(self) -> AgentBaySandboxClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the client that this one made."""
        await self._bay.aclose()

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: AgentBaySandboxClientOptions | None = None,
    ) -> SandboxSession:
        """Create a session for a manifest, which is applied when it starts."""
        wanted: Any = manifest or Manifest()
        self._validate_manifest_for_create(wanted)
        options = options or AgentBaySandboxClientOptions()
        session_id = uuid.uuid4()
        state = AgentBaySandboxSessionState(
            session_id=session_id,
            manifest=wanted,
            snapshot=resolve_snapshot(snapshot, str(session_id)),
            exposed_ports=options.exposed_ports,
            options=options,
        )
        return await self._wrap(state)

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """Find the session again, or make another one, which starts from the snapshot."""
        if not isinstance(state, AgentBaySandboxSessionState):
            raise TypeError(f"AgentBaySandboxClient cannot resume the state of a {state.type!r} sandbox.")
        state.assert_path_grants_rebound()
        found = await self._find_session(state.sandbox_id)
        if found is None:
            state.workspace_root_ready = False
        return await self._wrap(state, found)

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Delete the session, also a paused one."""
        inner = session._inner
        if not isinstance(inner, AgentBaySandboxSession):
            raise TypeError("AgentBaySandboxClient can delete sandboxes of its own only.")
        await inner.delete()
        return session

    def deserialize_session_state(self, payload: dict[str, object]) -> SandboxSessionState:
        """Read a state that was stored as JSON."""
        return self._deserialize_session_state_payload(payload, AgentBaySandboxSessionState)

    async def _wrap(self, state: Any, found: AsyncSession | None = None) -> SandboxSession:
        session = found or await make_session(self._bay, state.options.session_params(state.manifest))
        state.sandbox_id = session.session_id
        inner = AgentBaySandboxSession(state, session)
        inner._set_start_state_preserved(found is not None)
        return self._wrap_session(inner, instrumentation=self._instrumentation)

    async def _find_session(self, session_id: str) -> AsyncSession | None:
        try:
            session = (await self._bay.get(session_id)).unwrap().session
            status = (await session.get_status()).unwrap().status
            if status == "PAUSED":
                (await session.resume()).unwrap()
        except NotFoundError:
            return None
        return session if status in ("RUNNING", "PAUSED") else None
