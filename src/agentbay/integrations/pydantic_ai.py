"""Pydantic AI: a session's commands, code and files as a toolset."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

from typing import Any

from agentbay import AsyncSession, Session
from agentbay.integrations import missing
from agentbay.integrations.tools import tools_of, with_error

try:
    from pydantic_ai import ModelRetry
    from pydantic_ai.toolsets import FunctionToolset
except ImportError as error:
    raise missing("pydantic_ai", error) from error


def agentbay_toolset(session: Session | AsyncSession, **options: Any) -> FunctionToolset[Any]:
    """Return the tools that work in a session: `Agent(model, toolsets=[agentbay_toolset(session)])`.

    Args:
        session: Where they work; a `Session` is used in threads.
        options: Passed to `FunctionToolset`, such as `max_retries` and `requires_approval`.
    """
    return FunctionToolset([with_error(tool, ModelRetry) for tool in tools_of(session)], **options)
