"""Calling tools, and telling which there are."""

from __future__ import annotations

from agentbay._wire.tools import CallMcpTool, ListMcpTools, ToolEntry, ToolReply
from agentbay.local import images
from agentbay.local.dispatch import answers
from agentbay.local.runtime import Runtime
from agentbay.local.tooling import call_tool, catalogue


@answers(CallMcpTool)
async def call(runtime: Runtime, action: CallMcpTool) -> ToolReply:
    return await call_tool(runtime.sessions.find(action.session_id), action.name, action.args)


@answers(ListMcpTools)
async def list_tools(runtime: Runtime, action: ListMcpTools) -> list[ToolEntry]:
    images.choose(action.image_id)
    return catalogue()
