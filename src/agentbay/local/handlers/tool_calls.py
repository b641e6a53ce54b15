"""The list of tools with their schemas, and calls of tools by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from agentbay._wire.converter import MalformedError, structure, unstructure
from agentbay._wire.schema import JSON, EncodedJson, Tool
from agentbay._wire.tool_schema import tool_schema
from agentbay._wire.tools import ToolEntry, ToolReply
from agentbay.local.handlers.handler_tables import HandlerTable, RawBody, RawReply, RawToolHandler, ToolHandler
from agentbay.local.handlers.results import METHOD_NOT_FOUND, error_result
from agentbay.local.sessions.images import PHONE_IMAGE, has_phone
from agentbay.local.sessions.session import Session

# A new module of tools is listed here. The first ones are what most programs begin with.
TOOLS = HandlerTable(
    ToolHandler,
    lambda handler: handler.tool.tool,
    *("shell", "files", "code", "processes", "metrics", "env", "oss", "browser", "desktop", "operator", "agents"),
)
RAW_TOOLS = HandlerTable(RawToolHandler, lambda handler: handler.tool.tool, "raw_files", "raw_shell", "processes")
PHONE_TOOLS = HandlerTable(ToolHandler, lambda handler: handler.tool.tool, "phone")


async def call_tool(session: Session, name: str, args: Mapping[str, Any]) -> ToolReply:
    """Call a tool by its name.

    An unknown name and malformed arguments are error results, as the Model Context Protocol has it, not errors.
    """
    session.lifecycle.require_running()
    # a phone's tools take the place of the desktop's of the same names
    handler = await PHONE_TOOLS.find(name) if has_phone(session.image_id) else None
    handler = handler or await TOOLS.find(name)
    if handler is None:
        hint = f": create the session with image_id={PHONE_IMAGE!r}" if await PHONE_TOOLS.find(name) else ""
        return error_result(f"Tool not found: {name:.80}{hint}", METHOD_NOT_FOUND)
    try:
        arguments: Tool = structure(args, handler.tool, path="args")
    except MalformedError as error:
        return error_result(f"Invalid arguments: {error}")
    return await handler.run(session, arguments)


async def call_raw_tool(session: Session, name: str, args: Mapping[str, Any], body: RawBody) -> ToolReply | RawReply:
    """Call a tool that takes or sends its bytes as they are."""
    session.lifecycle.require_running()
    handler = await RAW_TOOLS.find(name)
    if handler is None:
        return error_result(f"No tool that takes raw bytes: {name:.80}", METHOD_NOT_FOUND)
    try:
        arguments: Tool = structure(args, handler.tool, path="args")
    except MalformedError as error:
        return error_result(f"Invalid arguments: {error}")
    return await handler.run(session, arguments, body)


@cache
def tool_catalogue(image_id: str) -> list[ToolEntry]:
    """List the tools that the sessions of an image offer."""
    handlers = TOOLS.all() | PHONE_TOOLS.all() if has_phone(image_id) else TOOLS.all()
    return [_entry(handler.tool) for handler in handlers.values()]


@cache
def read_catalogue_file(image_id: str) -> EncodedJson:
    """Return the stored tool list of an image as JSON.

    Every answer that creates a session has it.
    """
    return EncodedJson(" ".join(catalogue_file(image_id).read_text(encoding="ascii").splitlines()))


def generate_catalogue(image_id: str) -> str:
    """Generate the tool list of an image as JSON, one tool a line.

    `build_catalogue.py` stores it, since it needs the class of every tool, which takes long to make.
    """
    return "[" + ",\n".join(JSON.encode(unstructure(entry)) for entry in tool_catalogue(image_id)) + "]"


def catalogue_file(image_id: str) -> Path:
    """Return the path of the stored tool list of an image."""
    return Path(__file__).with_name("phone_catalogue.json" if has_phone(image_id) else "catalogue.json")


def _entry(cls: type[Tool]) -> ToolEntry:
    return ToolEntry(
        name=cls.tool,
        server=cls.server,
        description=inspect.getdoc(cls) or "",
        input_schema=tool_schema(cls),
        tool=cls.tool,
    )
