"""The actions that call and list tools."""

from __future__ import annotations

from agentbay._wire.tools import CallMcpTool, ListMcpTools, ToolEntry, ToolReply
from agentbay.local.handlers.handler_tables import action_handler
from agentbay.local.handlers.tool_calls import call_tool, tool_catalogue
from agentbay.local.runtime import Runtime
from agentbay.local.sessions import images


@action_handler(CallMcpTool)
async def call(runtime: Runtime, action: CallMcpTool) -> ToolReply:
    return await call_tool(runtime.sessions.find(action.session_id), action.name, action.args)


@action_handler(ListMcpTools)
async def list_tools(runtime: Runtime, action: ListMcpTools) -> list[ToolEntry]:
    return tool_catalogue(images.resolve_image(action.image_id, runtime.images.store).name)
