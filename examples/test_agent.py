"""Test an agent offline in real sessions, with the package's pytest fixtures.

pytest examples/test_agent.py
"""

from __future__ import annotations

import asyncio

import pytest

from agentbay import AgentBay, AsyncAgentBay, AsyncSession, Session


def fix_typo(session: Session, path: str) -> bool:
    """Fix a file, as the agent under test, and run its check."""
    session.file_system.edit_file(path, [{"oldText": "pritn", "newText": "print"}]).unwrap()
    return session.command.run(f"python3 {path}").success


def deploy() -> str:
    """Use a client that the agent makes from its environment."""
    with AgentBay() as bay, bay.session() as session:
        return session.command.run("echo deployed").check().stdout.strip()


def test_mends_a_file(session: Session) -> None:
    """The agent fixes the file in a fresh session."""
    session.file_system.write_file("hello.py", "pritn('hello')\n").unwrap()
    assert fix_typo(session, "hello.py")
    assert session.file_system.read("hello.py").content == "print('hello')\n"


def test_says_so_if_it_cannot(session: Session) -> None:
    """Each test has its own session, without other tests' files."""
    assert not session.file_system.read("hello.py")
    session.file_system.write_file("worse.py", "pritn('hello'\n").unwrap()
    assert not fix_typo(session, "worse.py")


@pytest.mark.usefixtures("agentbay_environment")
def test_agent_with_a_client_of_its_own() -> None:
    """`agentbay_environment` points `AgentBay()` to the test's runtime."""
    assert deploy() == "deployed"


def test_nothing_is_left(agent_bay: AgentBay) -> None:
    """All sessions of the tests above are deleted."""
    assert agent_bay.list().unwrap().total_count == 0


def test_with_await(async_session: AsyncSession, async_agent_bay: AsyncAgentBay) -> None:
    """The asynchronous fixtures work under anyio and pytest-asyncio."""

    async def work() -> str:
        assert (await async_agent_bay.list()).total_count == 1
        return (await async_session.command.run("whoami")).stdout

    assert asyncio.run(work()) == "wuying\n"
