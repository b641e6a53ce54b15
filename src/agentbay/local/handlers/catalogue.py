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
from agentbay.local.handlers import (
    agents,
    browser,
    code,
    desktop,
    env,
    files,
    metrics,
    operator,
    oss,
    phone,
    processes,
    raw_files,
    raw_shell,
    shell,
)
from agentbay.local.handlers.dispatch import RawBody, RawReply, RawToolHandler, ToolHandler, collect_handlers
from agentbay.local.handlers.results import METHOD_NOT_FOUND, error_result
from agentbay.local.sessions.images import PHONE_IMAGE, has_phone
from agentbay.local.sessions.session import Session

# a new module of tools is listed here
_TOOL_MODULES = (agents, browser, code, desktop, env, files, metrics, operator, oss, processes, shell)
_TOOL_HANDLERS = {handler.tool.tool: handler for handler in collect_handlers(ToolHandler, _TOOL_MODULES)}
_RAW_MODULES = (processes, raw_files, raw_shell)
_RAW_HANDLERS = {handler.tool.tool: handler for handler in collect_handlers(RawToolHandler, _RAW_MODULES)}
_PHONE_HANDLERS = {handler.tool.tool: handler for handler in collect_handlers(ToolHandler, (phone,))}


async def call_tool(session: Session, name: str, args: Mapping[str, Any]) -> ToolReply:
    """Call a tool by its name.

    An unknown name and malformed arguments are error results, as the Model Context Protocol has it, not errors.
    """
    session.lifecycle.require_running()
    handler = _handlers(session.image_id).get(name)
    if handler is None:
        hint = f": create the session with image_id={PHONE_IMAGE!r}" if name in _PHONE_HANDLERS else ""
        return error_result(f"Tool not found: {name:.80}{hint}", METHOD_NOT_FOUND)
    try:
        arguments: Tool = structure(args, handler.tool, path="args")
    except MalformedError as error:
        return error_result(f"Invalid arguments: {error}")
    return await handler.run(session, arguments)


async def call_raw_tool(session: Session, name: str, args: Mapping[str, Any], body: RawBody) -> ToolReply | RawReply:
    """Call a tool that takes or sends its bytes as they are."""
    session.lifecycle.require_running()
    handler = _RAW_HANDLERS.get(name)
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
    return [_entry(handler.tool) for handler in _handlers(image_id).values()]


@cache
def encoded_catalogue(image_id: str) -> EncodedJson:
    """Return that list as JSON, which every new session's answer has."""
    return EncodedJson(" ".join(catalogue_file(image_id).read_text(encoding="ascii").splitlines()))


def encode_catalogue(image_id: str) -> str:
    """Make that JSON, one tool a line, for `build_catalogue.py`.

    It needs the class of every tool, which takes long to make.
    """
    return "[" + ",\n".join(JSON.encode(unstructure(entry)) for entry in tool_catalogue(image_id)) + "]"


def catalogue_file(image_id: str) -> Path:
    """Return the file in which `build_catalogue.py` keeps it."""
    return Path(__file__).with_name("phone_catalogue.json" if has_phone(image_id) else "catalogue.json")


def _handlers(image_id: str) -> Mapping[str, ToolHandler]:
    # a phone's tools take the place of the desktop's of the same names
    return _TOOL_HANDLERS | _PHONE_HANDLERS if has_phone(image_id) else _TOOL_HANDLERS


def _entry(cls: type[Tool]) -> ToolEntry:
    return ToolEntry(
        name=cls.tool,
        server=cls.server,
        description=inspect.getdoc(cls) or "",
        input_schema=tool_schema(cls),
        tool=cls.tool,
    )
