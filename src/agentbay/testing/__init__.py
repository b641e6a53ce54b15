"""For tests of programs that use AgentBay: a runtime of their own on this machine, and pytest fixtures on it.

The fixtures come with the package as a pytest plugin and need no import; `agentbay.testing.plugin` lists them. This
module is what they are made of, for those who test with something else. It needs Linux and the extra `local`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentbay import AgentBay, AsyncAgentBay

__all__ = ["LocalRuntime", "local_runtime"]


@dataclass(frozen=True, slots=True)
class LocalRuntime:
    """A runtime that runs on this machine, for whoever knows its key.

    Attributes:
        endpoint: Its URL.
        api_key: The key that it wants, made for it alone.
    """

    endpoint: str
    api_key: str = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which `AgentBay()`, the published client too, and the `agentbay` command find it."""
        return {"AGENTBAY_ENDPOINT": self.endpoint, "AGENTBAY_API_KEY": self.api_key}

    def agent_bay(self, *, strict: bool = False) -> AgentBay:
        """Make a client of it; the caller closes it."""
        from agentbay import AgentBay, Config

        return AgentBay(self.api_key, Config(endpoint=self.endpoint), strict=strict)

    def async_agent_bay(self, *, strict: bool = False) -> AsyncAgentBay:
        """Make an asynchronous client of it; the caller closes it."""
        from agentbay import AsyncAgentBay, Config

        return AsyncAgentBay(self.api_key, Config(endpoint=self.endpoint), strict=strict)


@contextmanager
def local_runtime(*, state_dir: str | None = None, isolation: str = "auto") -> Iterator[LocalRuntime]:
    """Start a private runtime for a `with` block; at its end the runtime and all its sessions are gone.

    Args:
        state_dir: Directory for its files; None is a temporary one that goes with it.
        isolation: As for `AgentBay.local()`.

    Raises:
        ConfigurationError: If it cannot start here; says what is missing.
    """
    from agentbay._runtime_launcher import RuntimeLauncher

    launcher = RuntimeLauncher(state_dir=state_dir, isolation=isolation)
    try:
        yield LocalRuntime(launcher.start(), launcher.settings(None).api_key)
    finally:
        launcher.stop()
