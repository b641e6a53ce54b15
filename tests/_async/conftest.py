"""Fixtures: one runtime per test module, one session per test."""

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
