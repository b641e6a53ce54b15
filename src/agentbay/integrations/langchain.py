"""LangChain: a session's commands, code and files as tools of an agent."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from agentbay.integrations import missing
from agentbay.integrations.tools import tools_of, with_error

try:
    from langchain_core.tools import BaseTool, BaseToolkit, StructuredTool, ToolException
except ImportError as error:
    raise missing("langchain", error) from error


class AgentBayToolkit(BaseToolkit):
    """Tools that work in a session: `create_agent(model, AgentBayToolkit(session=session).get_tools())`.

    With a `Session` they are synchronous, and LangChain awaits them in threads. With an `AsyncSession` they are
    asynchronous only.

    Attributes:
        session: The session.
    """

    session: Any  # a Session or an AsyncSession, which pydantic cannot check

    def get_tools(self) -> list[BaseTool]:
        """Return the tools, which report errors to the model."""
        return [_make_tool(function) for function in tools_of(self.session)]


def _make_tool(function: Callable[..., Any]) -> BaseTool:
    """Make a tool of a function, with LangChain's own error for the model."""
    call = with_error(function, ToolException)
    if iscoroutinefunction(call):
        return StructuredTool.from_function(coroutine=call, handle_tool_error=True)
    return StructuredTool.from_function(func=call, handle_tool_error=True)
