"""A local runtime for tests of programs that use AgentBay.

The pytest fixtures of `agentbay.testing.plugin` are made of it and need no import. Use this module with other test
frameworks. It needs Linux and the extra `local`, elsewhere docker or podman.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Unpack

if TYPE_CHECKING:
    from agentbay import AgentBay, AsyncAgentBay, LocalOptions

__all__ = ["LocalRuntime", "local_runtime"]


@dataclass(frozen=True, slots=True)
class LocalRuntime:
    """A running local runtime.

    Attributes:
        endpoint: Its URL.
        api_key: Its key, generated for it.
    """

    endpoint: str
    api_key: str = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that point clients to it.

        `AgentBay()`, the published client and the `agentbay` command read them.
        """
        return {"AGENTBAY_ENDPOINT": self.endpoint, "AGENTBAY_API_KEY": self.api_key}

    def agent_bay(self, *, strict: bool = False) -> AgentBay:
        """Return a new client of it, which the caller closes."""
        from agentbay import AgentBay, Config

        return AgentBay(self.api_key, Config(endpoint=self.endpoint), strict=strict)

    def async_agent_bay(self, *, strict: bool = False) -> AsyncAgentBay:
        """Return a new asynchronous client of it, which the caller closes."""
        from agentbay import AsyncAgentBay, Config

        return AsyncAgentBay(self.api_key, Config(endpoint=self.endpoint), strict=strict)


@contextmanager
def local_runtime(**options: Unpack[LocalOptions]) -> Iterator[LocalRuntime]:
    """Start a private runtime for a `with` block.

    At the end of the block the runtime stops and all its sessions are deleted.

    Args:
        **options: As for `AgentBay.local()`; see `LocalOptions`.

    Raises:
        ConfigurationError: If it cannot start on this machine; the message says what is missing.
    """
    from agentbay._runtime_launcher import RuntimeLauncher

    launcher = RuntimeLauncher(options)
    try:
        yield LocalRuntime(launcher.start(), launcher.settings(None).api_key)
    finally:
        launcher.stop()
