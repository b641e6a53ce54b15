"""Calls of tools inside a session, by way of the service or directly, and the tools' arguments."""

from __future__ import annotations

from typing import Any

from .schema import JSON_RAW, Action, Tool, action, camel_payload, tool, wire


@camel_payload
class ToolEntry:
    """A tool that a session offers."""

    name: str = wire(aliases=("Name",), default="")
    server: str = wire(aliases=("serverName", "Server"), default="")
    description: str = ""
    input_schema: dict[str, Any] = wire(factory=dict)
    tool: str = ""


@camel_payload
class ToolReply:
    """What a tool answered; `content` items are objects with a `type`, or bare text."""

    content: list[Any] = wire(factory=list)
    is_error: bool = False
    structured_content: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """The text of the first item: its `text`, else its `blob` or `data`."""
        first = self.content[0] if self.content else ""
        if isinstance(first, dict):
            first = first.get("text") or first.get("blob") or first.get("data") or ""
        return first if isinstance(first, str) else ""


@action("CallMcpTool")
class CallMcpTool(Action[ToolReply]):
    """Call a tool inside a session. Not repeatable: a tool may have effects."""

    session_id: str
    name: str
    args: dict[str, Any] = wire(codec=JSON_RAW)
    server: str = ""
    auto_gen_session: bool = False


@action("ListMcpTools", idempotent=True, data_as_text=True)
class ListMcpTools(Action[list[ToolEntry]]):
    """List the tools that an image offers."""

    image_id: str


@camel_payload
class DirectToolCall:
    """Body of a tool call that goes straight to a session's own link; `token` opens that session only."""

    args: dict[str, Any]
    server: str
    request_id: str
    tool: str
    token: str = wire(repr=False)


@tool("shell", "wuying_shell")
class Shell(Tool):
    """Run a command with the session's shell. `timeout_ms` is milliseconds, 1000 if absent."""

    command: str
    timeout_ms: int = wire("timeout_ms", default=1000)
    cwd: str | None = None
    envs: dict[str, str] | None = None


@tool("read_file", "wuying_filesystem")
class ReadFile(Tool):
    """Read a file. `offset` and `length` are bytes, length 0 is all the rest; format "binary" gives base64."""

    path: str
    offset: int = 0
    length: int = 0
    format: str | None = None


@tool("write_file", "wuying_filesystem")
class WriteFile(Tool):
    """Write text to a file; `mode` is overwrite or append."""

    path: str
    content: str
    mode: str = "overwrite"


@tool("list_directory", "wuying_filesystem")
class ListDirectory(Tool):
    """List a directory, one `[DIR] name` or `[FILE] name` a line."""

    path: str


@tool("get_file_info", "wuying_filesystem")
class GetFileInfo(Tool):
    """Tell what is known of a file, one `key: value` a line."""

    path: str


@tool("get_metrics", "wuying_system")
class GetMetrics(Tool):
    """Measure the load of the session."""
