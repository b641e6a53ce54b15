"""Write tool calls, and read the tools that every session has."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from typing import Any

from .._wire.converter import unstructure
from .._wire.raw_calls import RAW_BODY
from .._wire.schema import Tool
from .._wire.tools import DirectToolCall, ToolEntry
from ..errors import ReplyError
from ..models.session import SessionMetrics
from ..models.tools import McpTool


def tool_arguments(tool: Tool) -> dict[str, Any]:
    """Return the arguments of a tool as a JSON object, without None."""
    written: dict[str, Any] = unstructure(tool)
    return written


def make_direct_call(name: str, args: dict[str, Any], server: str, token: str) -> DirectToolCall:
    """Return a call for the session's own link, with a fresh request id."""
    request_id = f"link-{time.time_ns() // 1_000_000}-{int.from_bytes(os.urandom(8)) % 10**9:09d}"
    return DirectToolCall(args=args, server=server, request_id=request_id, tool=name, token=token)


def takes_raw_calls(tools: Iterable[McpTool], tool: type[Tool]) -> bool:
    """Return whether a session's link takes or sends a tool's raw bytes."""
    return any(entry.name == tool.tool and entry.server and entry.input_schema.get(RAW_BODY) is True for entry in tools)


def to_mcp_tools(entries: Iterable[ToolEntry]) -> list[McpTool]:
    return [
        McpTool(entry.name, entry.server, description=entry.description, input_schema=entry.input_schema)
        for entry in entries
    ]


_LEGACY_METRIC_NAMES = {
    "rx_rate_kbyte_per_s": ("rx_rate_kbps", "rx_rate_KBps"),
    "tx_rate_kbyte_per_s": ("tx_rate_kbps", "tx_rate_KBps"),
    "rx_used_kbyte": ("rx_used_kb", "rx_used_KB"),
    "tx_used_kbyte": ("tx_used_kb", "tx_used_KB"),
}


def read_metrics(text: str) -> tuple[dict[str, Any], SessionMetrics]:
    """Read the text of the metrics tool, as JSON and as a model.

    Raises:
        ReplyError: If it is not a JSON object of numbers.
    """
    try:
        raw = json.loads(text)
        if not isinstance(raw, dict):
            raise ValueError("not a JSON object")
        metrics = SessionMetrics()
        for name, default in vars(metrics).items():
            value = next(
                (raw[key] for key in (name, *_LEGACY_METRIC_NAMES.get(name, ())) if raw.get(key) is not None), default
            )
            setattr(metrics, name, type(default)(value))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ReplyError(f"Failed to parse get_metrics response: {error}") from error
    return raw, metrics
