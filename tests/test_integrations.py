"""The adapters for agent frameworks: each works where its framework is, and says what to install where it is not.

`scripts/test-frameworks` runs them through the frameworks' own suites.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

import agentbay
from agentbay import Session

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
    "__init__", "_harbor_files", "_jupyter_relay", "_jupyter_session", "_openai_agents_programs",
    "_openai_agents_session", "_swerex_runtime", "shell", "tools",
}  # fmt: skip


def test_every_adapter_is_complete() -> None:
    """Each has an extra of its name, a suite with pins, a section in the documentation, and is short."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    page = (ROOT / "docs" / "frameworks.md").read_text()
    assert {path.stem for path in FOLDER.glob("*.py")} == SHARED | set(FRAMEWORKS)
    for name in FRAMEWORKS:
        assert name in extras
        assert (ROOT / "requirements" / "frameworks" / f"{name}.txt").exists()
        assert (ROOT / "tests" / "frameworks" / f"suite_{name}.py").exists()
        assert f"`agentbay.integrations.{name}`" in page
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
