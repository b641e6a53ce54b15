"""The tools of the MCP endpoint: those of sessions, and three that manage sandboxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams, TextContent, Tool

from agentbay._version import __version__
from agentbay._wire.sessions import CreatedSessionData, CreateMcpSession
from agentbay._wire.tools import ToolEntry, ToolReply
from agentbay.errors import AgentBayError
from agentbay.local.api_errors import invalid_request
from agentbay.local.handlers import sessions
from agentbay.local.handlers.tool_calls import call_tool, tool_catalogue
from agentbay.local.large_json_encoder import TextSource
from agentbay.local.runtime import Runtime

_MAX_ANSWER_CHARACTERS = 8 << 20
_SANDBOX_ID = {"type": "string", "description": "Id of the sandbox, as create_sandbox returned it."}
_ID_ONLY = {"type": "object", "properties": {"sandbox_id": _SANDBOX_ID}, "required": ["sandbox_id"]}
_SANDBOX_TOOLS = (
    Tool(
        name="create_sandbox",
        description="Create a sandbox and return its id. It stays until kill_sandbox, or until it is unused for long.",
        input_schema={"type": "object", "properties": {}},
    ),
    Tool(
        name="get_sandbox_url",
        description="Return the URL of a page that shows a sandbox in a web browser.",
        input_schema=_ID_ONLY,
    ),
    Tool(
        name="kill_sandbox",
        description="Delete a sandbox with its files and processes.",
        input_schema=_ID_ONLY,
    ),
)


def make_mcp_server(runtime: Runtime, image_id: str) -> Server:
    """Make the server of one client, whose sandboxes are made from an image."""
    tools = [*_SANDBOX_TOOLS, *map(_with_sandbox_id, tool_catalogue(image_id))]

    async def list_tools(_: ServerRequestContext[Any], params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=tools)

    async def call(_: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        try:
            return await _call(runtime, image_id, params.name, params.arguments or {})
        except AgentBayError as error:
            return _text_result(f"Code: {error.code}, Message: {error.message}", is_error=True)

    return Server("agentbay", version=__version__, on_list_tools=list_tools, on_call_tool=call)


def _with_sandbox_id(entry: ToolEntry) -> Tool:
    schema = dict(entry.input_schema)
    schema["properties"] = {"sandbox_id": _SANDBOX_ID, **schema.get("properties", {})}
    schema["required"] = ["sandbox_id", *schema.get("required", ())]
    return Tool(name=entry.name, description=entry.description, input_schema=schema)


async def _call(runtime: Runtime, image_id: str, name: str, arguments: Mapping[str, Any]) -> CallToolResult:
    if name == "create_sandbox":
        created = await sessions.create.run(runtime, CreateMcpSession(image_id=image_id))
        assert isinstance(created, CreatedSessionData)
        return _text_result(created.session_id)
    arguments = dict(arguments)
    sandbox_id = arguments.pop("sandbox_id", None)
    if not isinstance(sandbox_id, str):
        raise invalid_request("sandbox_id must be the id of a sandbox, as create_sandbox returned it.")
    session = runtime.sessions.find(sandbox_id)
    if name == "get_sandbox_url":
        return _text_result(sessions.connection_fields(runtime, session)["resource_url"])
    if name == "kill_sandbox":
        await runtime.sessions.delete(session)
        return _text_result("true")
    return _to_result(await call_tool(session, name, arguments))


def _to_result(reply: ToolReply) -> CallToolResult:
    content = [_whole(item) for item in reply.content]
    if sum(len(text) for item in content for text in item.values()) > _MAX_ANSWER_CHARACTERS:
        limit = _MAX_ANSWER_CHARACTERS >> 20
        raise invalid_request(f"The answer has more than {limit} MiB: ask for a part of it, or use the SDK.")
    return CallToolResult.model_validate({"content": content, "isError": reply.is_error})


def _whole(item: dict[str, Any] | str) -> dict[str, str]:
    """Return an item of an answer with its large texts as strings."""
    item = {"type": "text", "text": item} if isinstance(item, str) else item
    return {
        name: "".join(value.text_pieces()) if isinstance(value, TextSource) else value for name, value in item.items()
    }


def _text_result(text: str, *, is_error: bool = False) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=is_error)
