"""Calls of tools inside a session, by way of the service or directly, and the tools' arguments."""

from __future__ import annotations

import json
from typing import Any

from .schema import JSON_UNESCAPED, Action, Tool, action, camel_payload, tool, wire_field


@camel_payload
class ToolEntry:
    """A tool that a session offers."""

    name: str = wire_field(aliases=("Name",), default="")
    server: str = wire_field(aliases=("serverName", "Server"), default="")
    description: str = ""
    input_schema: dict[str, Any] = wire_field(factory=dict)
    tool: str = ""


@camel_payload
class ToolReply:
    """What a tool answered; `content` items are objects with a `type`, or bare text."""

    content: list[Any] = wire_field(factory=list)
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
    args: dict[str, Any] = wire_field(codec=JSON_UNESCAPED, repr=False)
    server: str = ""
    auto_gen_session: bool = False


@action("ListMcpTools", idempotent=True, data_as_text=True)
class ListMcpTools(Action[list[ToolEntry]]):
    """List the tools that an image offers."""

    image_id: str


@camel_payload
class DirectToolCall:
    """Body of a tool call that goes straight to a session's own link; `token` opens that session only."""

    args: dict[str, Any] = wire_field(repr=False)
    server: str
    request_id: str
    tool: str
    token: str = wire_field(repr=False)


INTERNAL_MARK = "#agentbay: "
_MAX_LABEL_CHARACTERS = 2000  # characters


def mark_internal(script: str, starts: str | None = None, directory: str = "") -> str:
    """Mark a command by which a client does work of its own, such as reading a process's output.

    A comment in its first line says so; where a service tells what was run, it may leave the command out, or tell in
    its place what it starts.

    Args:
        starts: What goes on in the background when the command has ended.
        directory: Where, below the home, that keeps the files `stdout` and `stderr`, and at its end `exit`.
    """
    told = "" if starts is None else json.dumps({"starts": starts[:_MAX_LABEL_CHARACTERS], "directory": directory})
    return f"{INTERNAL_MARK}{told}\n{script}"


@tool("shell", "wuying_shell")
class Shell(Tool):
    """Run a command with the session's shell. `timeout_ms` is milliseconds, 1000 if absent."""

    command: str
    timeout_ms: int = wire_field("timeout_ms", default=1000)
    cwd: str | None = None
    envs: dict[str, str] | None = wire_field(default=None, repr=False)


@tool("run_code", "wuying_codespace")
class RunCode(Tool):
    """Run code; its state is kept for later code in the same language, or the same context, of which one is named.

    `timeout_s` is seconds, 60 if absent. Contexts are the local runtime's own.
    """

    code: str
    language: str | None = None
    timeout_s: int = wire_field("timeout_s", default=60)
    context: str | None = None


@camel_payload
class CodeContextEntry:
    """A place in which code of one language runs."""

    name: str
    language: str


@tool("create_code_context", "wuying_codespace")
class CreateCodeContext(Tool):
    """Make a context for code, with a kernel of its own; tells it as JSON. The local runtime's own."""

    language: str
    name: str | None = None


@tool("list_code_contexts", "wuying_codespace")
class ListCodeContexts(Tool):
    """Tell the contexts for code as a JSON list. The local runtime's own."""


@tool("restart_code_context", "wuying_codespace")
class RestartCodeContext(Tool):
    """Give a context for code a new kernel; what was defined is lost. The local runtime's own."""

    name: str


@tool("remove_code_context", "wuying_codespace")
class RemoveCodeContext(Tool):
    """Remove a context for code, and end its kernel. The local runtime's own."""

    name: str


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


@tool("create_directory", "wuying_filesystem")
class CreateDirectory(Tool):
    """Make a directory, and those above it."""

    path: str


@tool("delete_file", "wuying_filesystem")
class DeleteFile(Tool):
    """Delete a file, or a directory with all it holds."""

    path: str


@tool("move_file", "wuying_filesystem")
class MoveFile(Tool):
    """Move or rename a file or a directory."""

    source: str
    destination: str


@tool("search_files", "wuying_filesystem")
class SearchFiles(Tool):
    """Find files by a pattern of their name with `*` and `?`; `excludePatterns` are separated by commas."""

    path: str
    pattern: str
    exclude_patterns: str | None = wire_field("excludePatterns", default=None)


@camel_payload
class TextReplacement:
    """One replacement in a file: the first place that holds `old_text`."""

    old_text: str
    new_text: str


@tool("edit_file", "wuying_filesystem")
class EditFile(Tool):
    """Replace texts in a file, each the first time it occurs, one after the other; `dryRun` only shows the change."""

    path: str
    edits: list[TextReplacement]
    dry_run: bool = wire_field("dryRun", default=False)


@tool("read_multiple_files", "wuying_filesystem")
class ReadMultipleFiles(Tool):
    """Read several text files; one that cannot be read does not keep the others from it."""

    paths: list[str]


@tool("get_file_change", "wuying_filesystem")
class GetFileChange(Tool):
    """Tell what has changed below a directory since this was last asked; nothing the first time."""

    path: str


@tool("get_metrics", "wuying_system")
class GetMetrics(Tool):
    """Measure the load of the session."""


@camel_payload
class EnvironmentVariable:
    """An environment variable."""

    key: str
    value: str = wire_field(repr=False)


@tool("set_env", "wuying_system")
class SetEnv(Tool):
    """Set environment variables for what the session runs from now on."""

    envs: list[EnvironmentVariable]


@tool("get_env", "wuying_system")
class GetEnv(Tool):
    """Tell the session's environment variables: a JSON object of those asked for, or of all."""

    keys: list[str] | None = None


@tool("oss_env_init", "wuying_oss")
class OssEnvInit(Tool):
    """Give the session credentials for object storage."""

    access_key_id: str = wire_field("access_key_id", repr=False)
    access_key_secret: str = wire_field("access_key_secret", repr=False)
    security_token: str = wire_field("security_token", repr=False)
    endpoint: str | None = None
    region: str | None = None


@tool("oss_upload", "wuying_oss")
class OssUpload(Tool):
    """Put a file of the session into a bucket."""

    bucket: str
    object: str
    path: str


@tool("oss_upload_annon", "wuying_oss")
class OssUploadAnonymous(Tool):
    """Send a file of the session to a presigned URL."""

    url: str = wire_field(repr=False)
    path: str


@tool("oss_download", "wuying_oss")
class OssDownload(Tool):
    """Fetch an object of a bucket into a file of the session."""

    bucket: str
    object: str
    path: str


@tool("oss_download_annon", "wuying_oss")
class OssDownloadAnonymous(Tool):
    """Fetch what a presigned URL names into a file of the session."""

    url: str = wire_field(repr=False)
    path: str
