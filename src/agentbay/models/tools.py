"""Tools of a session, and results of calling them."""

from __future__ import annotations

from typing import Any

from .._lazy_attrs import define, field
from .base import BaseResult, IterableResult, list_or_empty


@define(slots=False)
class McpTool:
    """A tool that a session offers.

    `server` is the MCP server that runs it. Sessions with the same tools share `input_schema`.
    """

    name: str = ""
    server: str = ""
    description: str = field(default="", kw_only=True)
    input_schema: dict[str, Any] = field(factory=dict, kw_only=True, repr=False)


@define(slots=False)
class McpToolResult(BaseResult):
    """Outcome of a tool call.

    Attributes:
        data: The text that the tool returned; "" on failure.
        content: The whole answer of the tool, item by item, as the service sent it (`text`, `image`, ...).
        structured_content: The machine-readable answer, if the tool returned one.
    """

    data: str = ""
    error_message: str = ""
    content: list[dict[str, Any]] = field(factory=list, kw_only=True, repr=False)
    structured_content: dict[str, Any] | None = field(default=None, kw_only=True, repr=False)


@define(slots=False)
class McpToolsResult(BaseResult, IterableResult[McpTool]):
    """The tools that a session offers."""

    _LIST_FIELD = "tools"

    tools: list[McpTool] = field(default=None, converter=list_or_empty)
    success: bool = field(default=False, kw_only=True)
    error_message: str = field(default="", kw_only=True)
