"""The pytest plugin `agentbay`: fixtures with real sessions on a local runtime.

The runtime starts when the first test requests it. The asynchronous fixtures are ordinary fixtures that return
asynchronous objects. So they work with pytest-asyncio in each mode, with anyio's plugin on its asyncio backend, and in
tests that call `asyncio.run`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agentbay import AgentBay, AsyncAgentBay, AsyncSession, CreateSessionParams, LocalOptions, Session
    from agentbay.testing import LocalRuntime


@pytest.fixture(scope="session")
def agentbay_local_options() -> LocalOptions:
    """Options of the runtime, such as `{"allow_hosts": ["api.example.com"]}`.

    Override this fixture to change them.
    """
    return {}


@pytest.fixture(scope="session")
def agentbay_local(agentbay_local_options: LocalOptions) -> Iterator[LocalRuntime]:
    """A private local runtime, with its `endpoint` and `api_key`."""
    from agentbay.testing import local_runtime

    with local_runtime(**agentbay_local_options) as runtime:
        yield runtime


@pytest.fixture
def agentbay_environment(agentbay_local: LocalRuntime, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set environment variables so that `AgentBay()` finds the runtime."""
    monkeypatch.delenv("AGENTBAY_REGION_ID", raising=False)  # it takes precedence over the endpoint
    for name, value in agentbay_local.environment.items():
        monkeypatch.setenv(name, value)
    return agentbay_local.environment


@pytest.fixture
def agentbay_session_params() -> CreateSessionParams | None:
    """Parameters of the sessions.

    Override this fixture to change them.
    """
    return None


@pytest.fixture
def agent_bay(agentbay_local: LocalRuntime) -> Iterator[AgentBay]:
    """A client of the runtime."""
    with agentbay_local.agent_bay() as bay:
        yield bay


@pytest.fixture
def session(agent_bay: AgentBay, agentbay_session_params: CreateSessionParams | None) -> Iterator[Session]:
    """A fresh session, deleted after the test."""
    with agent_bay.session(agentbay_session_params) as session:
        yield session


@pytest.fixture
def async_agent_bay(agentbay_local: LocalRuntime) -> AsyncAgentBay:
    """An asynchronous client of the runtime.

    Its connections close with their event loop.
    """
    return agentbay_local.async_agent_bay()


@pytest.fixture
def async_session(
    async_agent_bay: AsyncAgentBay, agent_bay: AgentBay, agentbay_session_params: CreateSessionParams | None
) -> Iterator[AsyncSession]:
    """The asynchronous handle of a fresh session, deleted after the test."""
    from agentbay import AsyncSession

    with agent_bay.session(agentbay_session_params) as made:
        session = AsyncSession(async_agent_bay, made.session_id)
        for name in _SESSION_ATTRIBUTES:
            setattr(session, name, getattr(made, name))
        yield session


# Attributes that a handle gets when its session is created, the same in both flavours.
_SESSION_ATTRIBUTES = (
    "image_id",
    "app_instance_id",
    "resource_url",
    "vpc_id",
    "vpc_ip",
    "token",
    "link_url",
    "ws_url",
    "mcpTools",
    "enableBrowserReplay",
    "created_at",
    "expires_at",
)
