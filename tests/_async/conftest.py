"""A runtime for each module of tests, and a session of its own for each test; modules that need others have theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agentbay import AsyncAgentBay, AsyncSession


@pytest.fixture(scope="module")
async def bay() -> AsyncIterator[AsyncAgentBay]:
    async with AsyncAgentBay.local() as bay:
        yield bay


@pytest.fixture
async def session(bay: AsyncAgentBay) -> AsyncIterator[AsyncSession]:
    async with bay.session() as session:
        yield session
