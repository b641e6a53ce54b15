"""Pydantic AI: a session's commands, code and files as a toolset."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from agentbay import AsyncSession, Session
from agentbay.errors import AgentBayError
from agentbay.integrations import missing
from agentbay.integrations.tools import tools_of

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
    return FunctionToolset([_let_model_retry(function) for function in tools_of(session)], **options)


def _let_model_retry(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give errors of the session to the model, which may try something else."""
    if iscoroutinefunction(function):

        @wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> str:
            try:
                return str(await function(*args, **kwargs))
            except AgentBayError as error:
                raise ModelRetry(str(error)) from error

        return call_async

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> str:
        try:
            return str(function(*args, **kwargs))
        except AgentBayError as error:
            raise ModelRetry(str(error)) from error

    return call
