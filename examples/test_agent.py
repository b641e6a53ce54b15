"""Test an agent offline, in real sessions: the fixtures come with the package.

pytest examples/test_agent.py
"""

from __future__ import annotations

import asyncio

import pytest

from agentbay import AgentBay, AsyncAgentBay, AsyncSession, Session


def fix_typo(session: Session, path: str) -> bool:
    """The agent under test: it mends a file, and looks whether the file's own check is content."""
    session.file_system.edit_file(path, [{"oldText": "pritn", "newText": "print"}]).unwrap()
    return session.command.run(f"python3 {path}").success


def deploy() -> str:
    """An agent that makes its client itself; where to is the environment's business."""
    with AgentBay() as bay, bay.session() as session:
        return session.command.run("echo deployed").check().stdout.strip()


def test_mends_a_file(session: Session) -> None:
    """Three lines: a fresh session, the agent, what it did."""
    session.file_system.write_file("hello.py", "pritn('hello')\n").unwrap()
    assert fix_typo(session, "hello.py")
    assert session.file_system.read("hello.py").content == "print('hello')\n"


def test_says_so_if_it_cannot(session: Session) -> None:
    """Each test has a session of its own: there is no file of the other one."""
    assert not session.file_system.read("hello.py")
    session.file_system.write_file("worse.py", "pritn('hello'\n").unwrap()
    assert not fix_typo(session, "worse.py")


@pytest.mark.usefixtures("agentbay_environment")
def test_agent_with_a_client_of_its_own() -> None:
    """`agentbay_environment` makes `AgentBay()` mean the test's runtime."""
    assert deploy() == "deployed"


def test_nothing_is_left(agent_bay: AgentBay) -> None:
    """The agents above have deleted their sessions, and so have the fixtures."""
    assert agent_bay.list().unwrap().total_count == 0


def test_with_await(async_session: AsyncSession, async_agent_bay: AsyncAgentBay) -> None:
    """The asynchronous fixtures work in any loop: here, under anyio and under pytest-asyncio."""

    async def work() -> str:
        assert (await async_agent_bay.list()).total_count == 1
        return (await async_session.command.run("whoami")).stdout

    assert asyncio.run(work()) == "wuying\n"
