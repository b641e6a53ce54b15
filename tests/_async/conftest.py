"""Fixtures: one runtime per test module, one session per test, or one that the tests of a module share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agentbay import AsyncAgentBay, AsyncFileSystem, AsyncSession


@pytest.fixture(scope="module")
async def bay() -> AsyncIterator[AsyncAgentBay]:
    async with AsyncAgentBay.local() as bay:
        yield bay


@pytest.fixture
async def session(bay: AsyncAgentBay) -> AsyncIterator[AsyncSession]:
    async with bay.session() as session:
        yield session


@pytest.fixture(scope="module")
async def shared_session(bay: AsyncAgentBay) -> AsyncIterator[AsyncSession]:
    async with bay.session() as session:
        yield session


@pytest.fixture(params=["by link", "by service"])
async def files(shared_session: AsyncSession, request: pytest.FixtureRequest) -> AsyncIterator[AsyncFileSystem]:
    """The files of the shared session, by both routes of a call; its home is empty."""
    session = shared_session
    await session.command.run("rm -rf ~/* ~/.[a-z]* /tmp/.agentbay*")
    link = session.link_url
    if request.param == "by service":
        session.link_url = ""
    yield session.file_system
    session.link_url = link
