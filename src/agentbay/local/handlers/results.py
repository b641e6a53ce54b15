"""The answers of tools, and a check of their arguments."""

from __future__ import annotations

import os
from typing import Any

from agentbay._wire.tools import ToolReply
from agentbay.local.large_json_encoder import TextSource

INVALID_PARAMS, METHOD_NOT_FOUND = -32602, -32601  # JSON-RPC's error codes


def text_result(
    text: str | TextSource, structured: dict[str, Any] | None = None, *, is_error: bool = False
) -> ToolReply:
    """Make a result from a text, and an object for newer clients."""
    return ToolReply(content=[{"type": "text", "text": text}], is_error=is_error, structured_content=structured)


def error_result(message: str, code: int = INVALID_PARAMS, *, structured: dict[str, Any] | None = None) -> ToolReply:
    """Make the result of a tool that failed.

    Newer clients read the object beside the text.
    """
    return text_result(f"Execution failed. Error code:{code} Error message: {message}", structured, is_error=True)


def refusal_result(message: str, code: str) -> ToolReply:
    """Make the result of a tool that this runtime does not serve."""
    return text_result(f"{message} ({code})", {"error": {"code": code, "message": message}}, is_error=True)


def check_no_nul(*texts: str | None) -> None:
    """Raise ValueError if a text has NUL, which no process or path can take."""
    for text in texts:
        if text is not None and b"\0" in os.fsencode(text):
            raise ValueError("text with a NUL character cannot be used here")
