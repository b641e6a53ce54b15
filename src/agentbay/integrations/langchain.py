"""LangChain: a session's commands, code and files as tools of an agent."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from agentbay.errors import AgentBayError
from agentbay.integrations import missing
from agentbay.integrations.tools import tools_of

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
    if iscoroutinefunction(function):

        @wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> str:
            try:
                return str(await function(*args, **kwargs))
            except AgentBayError as error:
                raise ToolException(str(error)) from error

        return StructuredTool.from_function(coroutine=call_async, handle_tool_error=True)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> str:
        try:
            return str(function(*args, **kwargs))
        except AgentBayError as error:
            raise ToolException(str(error)) from error

    return StructuredTool.from_function(func=call, handle_tool_error=True)
