"""Raw bytes of tools, and sessions that seem not to take them."""

from __future__ import annotations

from typing import Any

from agentbay._wire.raw_calls import RAW_BODY


def without_raw_calls(session: Any) -> None:
    """Make a session look as one of a service that takes no raw bytes."""
    for tool in session.mcpTools:
        tool.input_schema = {name: part for name, part in tool.input_schema.items() if name != RAW_BODY}
