"""LlamaIndex: a session's commands, code and files as tools of an agent."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

from inspect import iscoroutinefunction

from agentbay import AsyncSession, Session
from agentbay.integrations import missing
from agentbay.integrations.tools import tools_of

try:
    from llama_index.core.tools import FunctionTool
except ImportError as error:
    raise missing("llamaindex", error) from error


def agentbay_tools(session: Session | AsyncSession) -> list[FunctionTool]:
    """Return the tools that work in a session: `FunctionAgent(tools=agentbay_tools(session), llm=...)`.

    Errors of the session are raised, and LlamaIndex's agents give them to the model.
    """
    return [
        FunctionTool.from_defaults(async_fn=function)
        if iscoroutinefunction(function)
        else FunctionTool.from_defaults(fn=function)
        for function in tools_of(session)
    ]
