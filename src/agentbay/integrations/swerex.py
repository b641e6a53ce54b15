"""SWE-ReX: run an agent's shells and commands in a session."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import ExitStack

from agentbay import CreateSessionParams
from agentbay.integrations import missing, open_session

try:
    from swerex.deployment.abstract import AbstractDeployment
    from swerex.deployment.hooks.abstract import CombinedDeploymentHook, DeploymentHook
    from swerex.exceptions import DeploymentNotStartedError
    from swerex.runtime.abstract import IsAliveResponse
    from swerex.utils.log import get_logger

    from agentbay.integrations._swerex_runtime import AgentBayRuntime
except ImportError as error:
    raise missing("swerex", error) from error

__all__ = ["AgentBayDeployment", "AgentBayRuntime"]


class AgentBayDeployment(AbstractDeployment):
    """A session of its own, from `start` to `stop`."""

    def __init__(self, params: CreateSessionParams | None = None, *, logger: logging.Logger | None = None) -> None:
        self.logger = logger or get_logger("rex-deploy")
        self._params, self._hooks = params, CombinedDeploymentHook()
        self._exit_stack, self._lock = ExitStack(), threading.Lock()
        self._runtime: AgentBayRuntime | None = None

    def add_hook(self, hook: DeploymentHook) -> None:
        """Add a hook, which is called at each step."""
        self._hooks.add_hook(hook)

    async def is_alive(self, *, timeout: float | None = None) -> IsAliveResponse:
        """Return whether the session exists and answers."""
        if self._runtime is None:
            return IsAliveResponse(is_alive=False, message="The deployment is not started.")
        return await self._runtime.is_alive(timeout=timeout)

    async def start(self) -> None:
        """Create the session."""
        if self._runtime is None:
            self._hooks.on_custom_step("Creating the session")
            await asyncio.to_thread(self._open)

    def _open(self) -> None:
        # Nothing can cancel a thread, so `stop` has to wait for one that creates a session.
        with self._lock:
            session = self._exit_stack.enter_context(open_session(self._params))
            self._runtime = AgentBayRuntime(session, self.logger)

    async def stop(self) -> None:
        """Delete the session, and close the client."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._lock:
            self._runtime = None
            self._exit_stack.close()

    @property
    def runtime(self) -> AgentBayRuntime:
        """The runtime in the session, between `start` and `stop`."""
        if self._runtime is None:
            raise DeploymentNotStartedError
        return self._runtime
