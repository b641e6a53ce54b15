"""The list of tools with their schemas, and the call of one by its name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any, get_args, get_origin

import attrs

from agentbay._wire.converter import MalformedError, structure
from agentbay._wire.schema import Tool
from agentbay._wire.tools import ToolEntry, ToolReply
from agentbay.local.handlers import code, env, files, metrics, oss, shell
from agentbay.local.handlers.dispatch import ToolHandler, collect_handlers
from agentbay.local.handlers.results import METHOD_NOT_FOUND, error_result
from agentbay.local.sessions.session import Session

_JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}
_TOOL_MODULES = (code, env, files, metrics, oss, shell)  # a new module of tools is listed here
_TOOL_HANDLERS = {handler.tool.tool: handler for handler in collect_handlers(ToolHandler, _TOOL_MODULES)}


async def call_tool(session: Session, name: str, args: Mapping[str, Any]) -> ToolReply:
    """Call a tool by its name; unknown ones and malformed arguments are answers, not errors, as with any tool."""
    session.lifecycle.require_running()
    if name not in _TOOL_HANDLERS:
        return error_result(f"Tool not found: {name:.80}", METHOD_NOT_FOUND)
    handler = _TOOL_HANDLERS[name]
    try:
        arguments: Tool = structure(args, handler.tool, path="Args")
    except MalformedError as error:
        return error_result(f"Invalid arguments: {error}")
    return await handler.run(session, arguments)


@cache
def tool_catalogue() -> list[ToolEntry]:
    """The tools that every session offers."""
    return [_entry(handler.tool) for handler in _TOOL_HANDLERS.values()]


def _entry(cls: type[Tool]) -> ToolEntry:
    return ToolEntry(
        name=cls.tool,
        server=cls.server,
        description=inspect.getdoc(cls) or "",
        input_schema=_schema(cls),
        tool=cls.tool,
    )


def _schema(cls: Any) -> dict[str, Any]:
    attrs.resolve_types(cls)
    fields = {field.metadata.get("wire") or field.name: field for field in attrs.fields(cls)}
    return {
        "type": "object",
        "properties": {name: _property_schema(field.type) for name, field in fields.items()},
        "required": [name for name, field in fields.items() if field.default is attrs.NOTHING],
    }


def _property_schema(kind: Any) -> dict[str, str]:
    if get_origin(kind) is list:
        return {"type": "array"}
    kinds = [part for part in get_args(kind) if part is not type(None)] or [kind]
    return {"type": _JSON_TYPES.get(kinds[0], "object")}
