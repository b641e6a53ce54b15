"""The integrations that others have published for `wuying-agentbay-sdk`, unchanged, over this package.

They are installed without that package: see "Published integrations" in docs/frameworks.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from langchain.tools import ToolRuntime

from agentbay import Session


@pytest.fixture
def manager(agentbay_environment: dict[str, str]) -> Iterator[Any]:
    made = import_module("llama_index.tools.agentbay").AgentBaySessionManager(default_image_id="code_latest")
    yield made
    made.cleanup()


def test_llama_index_tools(manager: Any) -> None:
    """The tools for commands, code and files of llama-index-tools-agentbay work."""
    module = import_module("llama_index.tools.agentbay")
    made = [
        *module.create_command_tools(manager),
        *module.create_code_tools(manager),
        *module.create_filesystem_tools(manager),
    ]
    tools = {tool.metadata.name: tool for tool in made}

    def call(name: str, **arguments: Any) -> str:
        return str(tools[name](**arguments).raw_output)

    assert "hello" in call("command_execute", command="echo hello")
    assert "42" in call("python_execute", code="print(6 * 7)")
    assert "42" in call("python_run_code", code="print(6 * 7)")
    assert "42" in call("javascript_run_code", code="console.log(6 * 7)")
    call("file_write", file_path="a.txt", content="text")
    assert "text" in call("file_read", file_path="a.txt")
    assert "a.txt" in call("file_list", directory=".")


def test_langchain_tools(session: Session) -> None:
    """The tools for a code space of langchain-agentbay-integration work."""
    toolkit = import_module("langchain_agentbay_integration").CodespaceIntegrationToolkit()
    tools = {tool.name: tool for tool in toolkit.get_tools()}
    context = SimpleNamespace(session_data=SimpleNamespace(codespace_session=session))
    runtime: Any = ToolRuntime(state={}, context=context, config={}, stream_writer=print, tool_call_id="1", store=None)

    def call(name: str, **arguments: Any) -> str:
        return str(tools[name].func(runtime=runtime, **arguments))

    assert "hello" in call("codespace_execute_command", command="echo hello")
    call("codespace_write_file", path="a.txt", content="text")
    assert "text" in call("codespace_read_file", path="a.txt")
    assert "42" in call("codespace_run_code", code="print(6 * 7)", language="python")
