"""The integrations that others have published for `wuying-agentbay-sdk`, unchanged, over this package.

They are installed without that package: see "Published integrations" in docs/frameworks.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from langchain.tools import ToolRuntime

from agentbay import BrowserOption, Session


@pytest.fixture
def manager(agentbay_environment: dict[str, str]) -> Iterator[Any]:
    made = import_module("llama_index.tools.agentbay").AgentBaySessionManager(default_image_id="code_latest")
    yield made
    made.cleanup()


def test_llama_index_tools(manager: Any, tmp_path: Path) -> None:
    """All tools of llama-index-tools-agentbay work."""
    module = import_module("llama_index.tools.agentbay")
    browser = import_module("llama_index.tools.agentbay.browser_tools")
    made = [
        *module.create_command_tools(manager),
        *module.create_code_tools(manager),
        *module.create_filesystem_tools(manager),
        browser.create_browser_info_tool(manager),
        browser.create_browser_screenshot_tool(manager),
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
    call("file_download", remote_path="a.txt", local_path=str(tmp_path / "a.txt"))
    assert (tmp_path / "a.txt").read_text() == "text"
    assert "ws://" in call("browser_info")
    assert "data:image/png" in call("browser_screenshot")


def call_langchain(toolkit: str, kind: str, session: Session, name: str, **arguments: Any) -> Any:
    """Call a tool of langchain-agentbay-integration as an agent does, and return what it answers."""
    tools = {
        tool.name: tool for tool in getattr(import_module("langchain_agentbay_integration"), toolkit)().get_tools()
    }
    context = SimpleNamespace(session_data=SimpleNamespace(**{kind: session}))
    runtime: Any = ToolRuntime(state={}, context=context, config={}, stream_writer=print, tool_call_id="1", store=None)
    return json.loads(tools[name].func(runtime=runtime, **arguments))


def test_langchain_code_space(session: Session) -> None:
    """The tools for a code space work."""
    call = partial(call_langchain, "CodespaceIntegrationToolkit", "codespace_session", session)
    assert "hello" in call("codespace_execute_command", command="echo hello")["output"]
    assert call("codespace_write_file", path="a.txt", content="text")["success"]
    assert call("codespace_read_file", path="a.txt")["content"] == "text"
    assert "42" in call("codespace_run_code", code="print(6 * 7)", language="python")["result"]


def test_langchain_browser(session: Session, tmp_path: Path) -> None:
    """The tools for a browser work, but that which needs a model."""
    call = partial(call_langchain, "BrowserIntegrationToolkit", "browser_session", session)
    assert session.browser.initialize(BrowserOption())
    assert "A page" in call("browser_navigate", url="data:text/html,<title>A page</title>")["result"]
    assert call("browser_screenshot", file_path=str(tmp_path / "page.png"))["success"]
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


def test_langchain_desktop(session: Session) -> None:
    """The tools for a desktop work, but those for pictures.

    These call `computer.screenshot()`, which the published client refuses as well in sessions with links.
    """
    call = partial(call_langchain, "ComputerIntegrationToolkit", "computer_session", session)
    assert call("computer_get_screen_size")["width"] == 1280
    assert call("computer_move_mouse", x=30, y=10)["success"]
    position = call("computer_get_cursor_position")
    assert (position["x"], position["y"]) == (30, 10)
    assert call("computer_click_mouse", x=40, y=20, button="left")["success"]
    assert call("computer_drag_mouse", from_x=1, from_y=2, to_x=5, to_y=6, button="left")["success"]
    assert call("computer_scroll", x=1, y=2, direction="up", amount=1)["success"]
    assert call("computer_input_text", text="a")["success"]
    assert call("computer_press_keys", keys=["a"], hold=False)["success"]
