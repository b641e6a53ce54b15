"""The pytest plugin `agentbay`, tried in separate test suites."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agentbay import QuotaExceededError
from agentbay.testing import LocalRuntime, local_runtime

pytestmark = pytest.mark.slow

if sys.platform != "linux":
    pytest.skip("the local runtime needs Linux", allow_module_level=True)

SUITE = """
import asyncio, os
import pytest
from agentbay import AgentBay, CreateSessionParams

def test_session(session, agent_bay):
    assert session.command.run("echo hi").stdout == "hi\\n"
    assert session.get_labels().data == {"of": "the suite"}
    assert agent_bay.list().total_count == 1

def test_deleted_by_the_test(session):
    assert session.delete()

@pytest.mark.xfail(strict=True)
def test_that_fails(session):
    assert not session.command.run("true")

def test_environment(agentbay_environment):
    with AgentBay() as bay, bay.session() as session:
        assert session.command.run("true")

def test_environment_is_put_back(agent_bay):
    assert "AGENTBAY_ENDPOINT" not in os.environ

@pytest.mark.anyio
async def test_await(async_session, async_agent_bay):
    assert (await async_session.command.run("echo hi")).stdout == "hi\\n"
    assert (await async_agent_bay.list()).total_count == 1

@pytest.mark.anyio
async def test_terminal(async_session):
    handle = await async_session.pty.create(shell="/bin/true")
    assert await handle.wait(60) == 0

def test_own_loop(async_session):
    async def work():
        return (await async_session.code.run("6 * 7", "python")).result
    assert asyncio.run(work()) == "42"

def test_options_reach_the_runtime(session):
    assert session.command.run("bash -c 'ulimit -u'").output == "50\\n"

def test_nothing_is_left(agent_bay):
    assert agent_bay.list().total_count == 0
"""
CONFTEST = """
import pytest
from agentbay import CreateSessionParams

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.fixture(scope="session")
def agentbay_local_options():
    return {"session_processes": 50, "max_sessions": 4}

@pytest.fixture
def agentbay_session_params():
    return CreateSessionParams(labels={"of": "the suite"})
"""


def suite(directory: Path, *arguments: str, **files: str) -> str:
    """Run a test suite as a process, with warnings as errors."""
    for name, text in files.items():
        (directory / f"{name}.py").write_text(text)
    line = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(line, cwd=directory, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_fixtures(tmp_path: Path) -> None:
    """Each test gets a fresh session, which is deleted afterwards."""
    assert "9 passed, 1 xfailed" in suite(tmp_path, test_it=SUITE, conftest=CONFTEST)


OWN = """
import pytest
@pytest.fixture
def session(): return 5
def test_own(session): assert session == 5
"""


def test_suite_without(tmp_path: Path) -> None:
    """A suite without the fixtures loads neither the client nor the runtime."""
    text = "import sys\ndef test(): print(*sys.modules)"
    output = suite(tmp_path, "-s", test_it=text, test_own=OWN)
    loaded = output.split()
    ours = {name for name in loaded if name.startswith("agentbay")}
    assert ours <= {"agentbay", "agentbay.testing", "agentbay.testing.plugin"}
    assert "httpx" not in loaded
    assert "2 passed" in output


def test_runtime_by_hand() -> None:
    """The runtime can be started without pytest, and hides its key."""
    with local_runtime(max_sessions=1) as runtime:
        assert isinstance(runtime, LocalRuntime)
        assert runtime.api_key not in repr(runtime)
        assert runtime.environment["AGENTBAY_ENDPOINT"] == runtime.endpoint
        with runtime.agent_bay(strict=True) as bay, bay.session() as session:
            assert session.command.run("true")
            with runtime.agent_bay() as other:
                assert isinstance(other.create().exception, QuotaExceededError)
    with runtime.agent_bay() as bay:
        assert not bay.list()
