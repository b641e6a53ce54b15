"""The adapters for agent frameworks: each works where its framework is, and says what to install where it is not.

`scripts/test-frameworks` runs them through the frameworks' own suites.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

import agentbay
from agentbay import AgentBay, Session
from agentbay.integrations import open_async_session, open_session
from agentbay.integrations.tools import tools_of
from agentbay.testing import LocalRuntime

ROOT = Path(__file__).parent.parent
FOLDER = Path(agentbay.__path__[0]) / "integrations"
FRAMEWORKS = {
    "autogen": "autogen_core",
    "deepagents": "deepagents",
    "harbor": "harbor",
    "inspect": "inspect_ai",
    "jupyter": "jupyter_client",
    "langchain": "langchain_core",
    "llamaindex": "llama_index",
    "openai_agents": "agents",
    "pydantic_ai": "pydantic_ai",
    "smolagents": "smolagents",
    "swerex": "swerex",
}
SHARED = {
    "__init__", "_harbor_files", "_inspect_image", "_jupyter_relay", "_jupyter_session", "_openai_agents_programs",
    "_openai_agents_session", "_swerex_runtime", "shell", "tools",
}  # fmt: skip


def test_every_adapter_is_complete() -> None:
    """Each has an extra of its name, a suite with pins, a page in the documentation, and is short."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    overview = (ROOT / "docs" / "frameworks.md").read_text()
    assert {path.stem for path in FOLDER.glob("*.py")} == SHARED | set(FRAMEWORKS)
    for name in FRAMEWORKS:
        assert name in extras
        assert (ROOT / "requirements" / "frameworks" / f"{name}.txt").exists()
        assert (ROOT / "tests" / "frameworks" / f"suite_{name}.py").exists()
        assert f"](frameworks/{name}.md)" in overview
        assert f"`agentbay.integrations.{name}`" in (ROOT / "docs" / "frameworks" / f"{name}.md").read_text()
        assert len((FOLDER / f"{name}.py").read_text().splitlines()) <= 120, name


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_missing_framework(name: str) -> None:
    """Without its framework an adapter says which extra to install."""
    hidden = FRAMEWORKS[name]
    program = f"import sys; sys.modules[{hidden!r}] = None; import agentbay.integrations.{name}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert f'pip install "agentbay-sdk[{name}]"' in done.stderr


def test_entry_point() -> None:
    """Inspect finds its sandbox by name, and Jupyter what runs its kernels."""
    [found] = entry_points(group="inspect_ai", name="agentbay")
    assert found.value == "agentbay.integrations.inspect"
    [found] = entry_points(group="jupyter_client.kernel_provisioners", name="agentbay")
    assert found.value == "agentbay.integrations.jupyter:AgentBayProvisioner"


@pytest.mark.skipif(find_spec("langchain_core") is None, reason="LangChain is not installed")
def test_langchain_tools(session: Session) -> None:
    """The tools work, and give errors of the session to the model."""
    toolkit = import_module("agentbay.integrations.langchain").AgentBayToolkit(session=session)
    tools = {tool.name: tool for tool in toolkit.get_tools()}
    assert set(tools) == {"run_command", "run_python", "read_file", "write_file", "list_directory"}
    assert tools["write_file"].invoke({"path": "a.py", "content": "print(6 * 7)"}) == "Written a.py."
    assert tools["run_command"].invoke({"command": "python3 a.py"}) == "42\n\n[exit code 0]"
    assert "nothing.txt" in tools["read_file"].invoke({"path": "nothing.txt"})


LATE = [
    ("run_command", "echo begun; echo on >&2; sleep 60", "begun\non\n\n[killed after 1 s]"),
    (
        "run_python",
        "print('begun'); import time; time.sleep(60)",
        "begun\n\nTimeoutError: the code ran longer than 1 s and was interrupted; what was defined is kept",
    ),
]


@pytest.mark.parametrize("strict", [False, True])
def test_tools_that_take_too_long(agentbay_local: LocalRuntime, *, strict: bool) -> None:
    """A model sees the output of what was killed, whether or not the client raises such errors."""
    with agentbay_local.agent_bay(strict=strict) as bay, bay.session() as session:
        tools = {tool.__name__: tool for tool in tools_of(session)}
        assert [tools[name](work, 1) for name, work, _ in LATE] == [said for *_, said in LATE]


@pytest.mark.parametrize("strict", [False, True])
def test_asynchronous_tools_that_take_too_long(agentbay_local: LocalRuntime, *, strict: bool) -> None:
    """The same for coroutine functions."""

    async def call() -> list[str]:
        async with agentbay_local.async_agent_bay(strict=strict) as bay, bay.session() as session:
            tools = {tool.__name__: tool for tool in tools_of(session)}
            return [await tools[name](work, 1) for name, work, _ in LATE]

    assert asyncio.run(call()) == [said for *_, said in LATE]


def test_session_of_an_adapter(agentbay_environment: dict[str, str]) -> None:
    """It is deleted when the framework fails, and may have vanished before."""

    async def open_and_fail() -> None:
        async with open_async_session() as session:
            await session.command.run("true")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(open_and_fail())
    with pytest.raises(ZeroDivisionError), open_session():
        raise ZeroDivisionError
    with AgentBay() as bay:
        with open_session() as session:
            assert bay.delete(session.session_id).success
        assert not list(bay.list())
