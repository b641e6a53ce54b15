"""The pytest plugin `agentbay`: fixtures on a runtime of its own, which starts when the first test asks for one.

The asynchronous fixtures are ordinary ones that give asynchronous objects. So they work under anyio's plugin, under
pytest-asyncio in each of its modes, and in a test that calls `asyncio.run` itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agentbay import AgentBay, AsyncAgentBay, AsyncSession, CreateSessionParams, Session
    from agentbay.testing import LocalRuntime


@pytest.fixture(scope="session")
def agentbay_local() -> Iterator[LocalRuntime]:
    """A private runtime on this machine: its `endpoint`, its `api_key`, and clients of it."""
    from agentbay.testing import local_runtime

    with local_runtime() as runtime:
        yield runtime


@pytest.fixture
def agentbay_environment(agentbay_local: LocalRuntime, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment says where the runtime is, so that a program that calls `AgentBay()` itself finds it."""
    monkeypatch.delenv("AGENTBAY_REGION_ID", raising=False)  # it would go before the endpoint
    for name, value in agentbay_local.environment.items():
        monkeypatch.setenv(name, value)
    return agentbay_local.environment


@pytest.fixture
def agentbay_session_params() -> CreateSessionParams | None:
    """What the sessions of the fixtures shall be; define a fixture of this name to say so."""
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
    """An asynchronous client of the runtime. What it opens in an event loop is closed with that."""
    return agentbay_local.async_agent_bay()


@pytest.fixture
def async_session(
    async_agent_bay: AsyncAgentBay, agent_bay: AgentBay, agentbay_session_params: CreateSessionParams | None
) -> Iterator[AsyncSession]:
    """A fresh session, as its asynchronous handle; deleted after the test."""
    from agentbay import AsyncSession

    with agent_bay.session(agentbay_session_params) as made:
        session = AsyncSession(async_agent_bay, made.session_id)
        for name in _SESSION_ATTRIBUTES:
            setattr(session, name, getattr(made, name))
        yield session


# What a handle knows from the creation of its session, the same in both flavours.
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
)
