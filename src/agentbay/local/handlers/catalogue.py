"""The list of tools with their schemas, and calls of tools by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

from agentbay._wire.converter import MalformedError, structure
from agentbay._wire.schema import Tool
from agentbay._wire.tool_schema import tool_schema
from agentbay._wire.tools import ToolEntry, ToolReply
from agentbay.local.handlers import agents, browser, code, desktop, env, files, metrics, operator, oss, processes, shell
from agentbay.local.handlers.dispatch import ToolHandler, collect_handlers
from agentbay.local.handlers.results import METHOD_NOT_FOUND, error_result
from agentbay.local.sessions.session import Session

# a new module of tools is listed here
_TOOL_MODULES = (agents, browser, code, desktop, env, files, metrics, operator, oss, processes, shell)
_TOOL_HANDLERS = {handler.tool.tool: handler for handler in collect_handlers(ToolHandler, _TOOL_MODULES)}


async def call_tool(session: Session, name: str, args: Mapping[str, Any]) -> ToolReply:
    """Call a tool by its name.

    An unknown name and malformed arguments are error results, as the Model Context Protocol has it, not errors.
    """
    session.lifecycle.require_running()
    if name not in _TOOL_HANDLERS:
        return error_result(f"Tool not found: {name:.80}", METHOD_NOT_FOUND)
    handler = _TOOL_HANDLERS[name]
    try:
        arguments: Tool = structure(args, handler.tool, path="args")
    except MalformedError as error:
        return error_result(f"Invalid arguments: {error}")
    return await handler.run(session, arguments)


@cache
def tool_catalogue() -> list[ToolEntry]:
    """List the tools that every session offers."""
    return [_entry(handler.tool) for handler in _TOOL_HANDLERS.values()]


def _entry(cls: type[Tool]) -> ToolEntry:
    return ToolEntry(
        name=cls.tool,
        server=cls.server,
        description=inspect.getdoc(cls) or "",
        input_schema=tool_schema(cls),
        tool=cls.tool,
    )
