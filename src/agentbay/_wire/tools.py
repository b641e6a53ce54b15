"""Calls of tools inside a session, and the arguments of each tool.

A tool's docstring and its fields' descriptions are what its schema tells a model.
"""

from __future__ import annotations

import json
from typing import Any

from .schema import JSON_UNESCAPED, Action, Tool, action, camel_payload, tool, wire_field


@camel_payload
class ToolEntry:
    """One tool of a session's list, with its schema."""

    name: str = wire_field(aliases=("Name",), default="")
    server: str = wire_field(aliases=("serverName", "Server"), default="")
    description: str = ""
    input_schema: dict[str, Any] = wire_field(factory=dict, is_json=True)
    tool: str = ""


@camel_payload
class ToolReply:
    """The answer of a tool.

    Attributes:
        content: Objects with a `type`, or bare texts.
    """

    content: list[Any] = wire_field(factory=list)
    is_error: bool = False
    structured_content: dict[str, Any] | None = wire_field(default=None, is_json=True)

    @property
    def text(self) -> str:
        """Return the first item's `text`, else its `blob` or `data`, else ""."""
        first = self.content[0] if self.content else ""
        if isinstance(first, dict):
            first = first.get("text") or first.get("blob") or first.get("data") or ""
        return first if isinstance(first, str) else ""

    @property
    def error_code(self) -> str:
        """Return the code that a local runtime adds to a failure, or ""."""
        error = (self.structured_content or {}).get("error")
        code = error.get("code") if isinstance(error, dict) else ""
        return code if isinstance(code, str) else ""

    @property
    def error_path(self) -> str:
        """Return the path that a local runtime adds to a failure, or ""."""
        error = (self.structured_content or {}).get("error")
        path = error.get("path") if isinstance(error, dict) else ""
        return path if isinstance(path, str) else ""


@action("CallMcpTool")
class CallMcpTool(Action[ToolReply]):
    """Call a tool inside a session.

    Not idempotent: a tool may have effects.
    """

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
    """Body of a tool call to a session's own link.

    `token` opens that session only.
    """

    args: dict[str, Any] = wire_field(repr=False)
    server: str
    request_id: str
    tool: str
    token: str = wire_field(repr=False)


ENCODINGS = ("utf-8", "base64")
ENCODING_DESCRIPTION = "How data is written: as text, or as base64 for any bytes."
ARGV_DESCRIPTION = "A program and its arguments, which are run instead of the command line, without a shell."
STDIN_DESCRIPTION = "What the command can read from its standard input."
MERGE_DESCRIPTION = "Whether standard error goes where standard output goes, in the order of writing."
INTERNAL_MARK = "#agentbay: "
_MAX_LABEL_CHARACTERS = 2000


def mark_internal(script: str, starts: str | None = None, directory: str = "") -> str:
    """Mark a command as the client's own work, in a comment before it.

    A service that shows a session's commands may leave such a command out, or show what it starts instead.

    Args:
        script: The command, such as one that reads a process's output.
        starts: The command that goes on in the background when this one has ended.
        directory: The background command's directory below the home, with its files `stdout`, `stderr` and `exit`.
    """
    note = "" if starts is None else json.dumps({"starts": starts[:_MAX_LABEL_CHARACTERS], "directory": directory})
    return f"{INTERNAL_MARK}{note}\n{script}"


@tool("shell", "wuying_shell", raw_body=True)
class Shell(Tool):
    """Run a command with the session's shell, and return its exit code and output."""

    command: str = wire_field(description="The command line, run by sh.")
    timeout_ms: int = wire_field(
        "timeout_ms", default=1000, description="Milliseconds after which the command is killed."
    )
    cwd: str | None = wire_field(default=None, description="Working directory; the home directory if absent.")
    envs: dict[str, str] | None = wire_field(
        default=None, repr=False, description="Further environment variables of this command, by name."
    )
    argv: list[str] | None = wire_field(default=None, description=ARGV_DESCRIPTION)
    stdin: str | None = wire_field(default=None, repr=False, description=STDIN_DESCRIPTION)
    stdin_encoding: str | None = wire_field(
        default=None, choices=ENCODINGS, description=f"{ENCODING_DESCRIPTION} Text if absent."
    )
    merge_stderr: bool | None = wire_field(default=None, description=MERGE_DESCRIPTION)


@tool("run_code", "wuying_codespace")
class RunCode(Tool):
    """Run code, and return what it prints and shows.

    Variables are kept for later code in the same language, or the same context. Give one of the two.
    """

    code: str = wire_field(description="The code, like a notebook cell: the value of its last line is a result.")
    language: str | None = wire_field(
        default=None, description="python, javascript, java, r, or jupyter: and the name of a kernelspec."
    )
    timeout_s: int = wire_field("timeout_s", default=60, description="Seconds after which the code is interrupted.")
    context: str | None = wire_field(default=None, description="Name of a context from create_code_context.")


@camel_payload
class CodeContextEntry:
    """A context for code: a kernel of one language with its own variables."""

    name: str
    language: str


@tool("create_code_context", "wuying_codespace")
class CreateCodeContext(Tool):
    """Create a context for code with its own kernel, and return it as JSON."""

    language: str = wire_field(description="As for run_code.")
    name: str | None = wire_field(default=None, description="Its name; the language and a number if absent.")


@tool("list_code_contexts", "wuying_codespace")
class ListCodeContexts(Tool):
    """List the contexts for code, as JSON."""


@tool("restart_code_context", "wuying_codespace")
class RestartCodeContext(Tool):
    """Restart a context for code with a new kernel.

    Its variables are lost.
    """

    name: str = wire_field(description="Name of the context; a language's name is its own context.")


@tool("remove_code_context", "wuying_codespace")
class RemoveCodeContext(Tool):
    """Remove a context for code, and end its kernel."""

    name: str = wire_field(description="Name of the context.")


@tool("read_file", "wuying_filesystem", raw_body=True)
class ReadFile(Tool):
    """Read a file, or a part of it."""

    path: str = wire_field(description="The file; a relative path starts at the home directory.")
    offset: int = wire_field(default=0, description="First byte to read.")
    length: int = wire_field(default=0, description="Number of bytes; 0 reads to the end.")
    format: str | None = wire_field(
        default=None, choices=("text", "binary"), description="text (UTF-8, the default), or binary for base64."
    )


@tool("write_file", "wuying_filesystem", raw_body=True)
class WriteFile(Tool):
    """Write text to a file, and create the directories above it."""

    path: str = wire_field(description="The file; a relative path starts at the home directory.")
    content: str = wire_field(description="The text.")
    mode: str = wire_field(
        default="overwrite", choices=("overwrite", "append"), description="Replace the file, or add at its end."
    )


@tool("list_directory", "wuying_filesystem")
class ListDirectory(Tool):
    """List a directory, one `[DIR] name` or `[FILE] name` a line."""

    path: str = wire_field(description="The directory.")


@tool("get_file_info", "wuying_filesystem")
class GetFileInfo(Tool):
    """Return the size, times, kind and permissions of a file.

    The text has one `key: value` a line.
    """

    path: str = wire_field(description="The file or directory.")


@tool("create_directory", "wuying_filesystem")
class CreateDirectory(Tool):
    """Create a directory, and those above it."""

    path: str = wire_field(description="The directory.")


@tool("delete_file", "wuying_filesystem")
class DeleteFile(Tool):
    """Delete a file, or a directory with everything in it."""

    path: str = wire_field(description="The file or directory.")


@tool("move_file", "wuying_filesystem")
class MoveFile(Tool):
    """Move or rename a file or a directory."""

    source: str = wire_field(description="The path now.")
    destination: str = wire_field(description="The path afterwards.")


@tool("search_files", "wuying_filesystem")
class SearchFiles(Tool):
    """Find files and directories by their names, in a directory and below it."""

    path: str = wire_field(description="The directory.")
    pattern: str = wire_field(description="Pattern of the name; * stands for any characters, ? for one.")
    exclude_patterns: str | None = wire_field(
        default=None, description="Patterns of names to leave out, separated by commas."
    )


@camel_payload
class TextReplacement:
    """One replacement in a file, at the first place that holds `old_text`."""

    old_text: str = wire_field(description="The text to find; only its first occurrence is replaced.")
    new_text: str = wire_field(description="The text to put there.")


@tool("edit_file", "wuying_filesystem")
class EditFile(Tool):
    """Replace texts in a file, in order, and return the change as a diff."""

    path: str = wire_field(description="The file.")
    edits: list[TextReplacement] = wire_field(description="The replacements, in order.")
    dry_run: bool = wire_field(default=False, description="Return the diff without changing the file.")


@tool("read_multiple_files", "wuying_filesystem")
class ReadMultipleFiles(Tool):
    """Read several text files.

    A file that cannot be read has its error in its place.
    """

    paths: list[str] = wire_field(description="The files.")


@tool("get_file_change", "wuying_filesystem")
class GetFileChange(Tool):
    """Return what changed below a directory since the last call.

    The first call returns nothing.
    """

    path: str = wire_field(description="The directory.")


@tool("get_metrics", "wuying_system")
class GetMetrics(Tool):
    """Measure the session's CPU, memory, disk and network usage."""


@camel_payload
class EnvironmentVariable:
    """An environment variable."""

    key: str = wire_field(description="Its name.")
    value: str = wire_field(repr=False, description="Its value.")


@tool("set_env", "wuying_system")
class SetEnv(Tool):
    """Set environment variables for everything that the session runs from now on."""

    envs: list[EnvironmentVariable] = wire_field(description="The variables.")


@tool("get_env", "wuying_system")
class GetEnv(Tool):
    """Return the session's environment variables as a JSON object."""

    keys: list[str] | None = wire_field(default=None, description="Names of the variables; all if absent.")


@tool("oss_env_init", "wuying_oss")
class OssEnvInit(Tool):
    """Give the session credentials for object storage."""

    access_key_id: str = wire_field("access_key_id", repr=False, description="Id of the access key.")
    access_key_secret: str = wire_field("access_key_secret", repr=False, description="Secret of the access key.")
    security_token: str = wire_field("security_token", repr=False, description="Token of temporary credentials.")
    endpoint: str | None = wire_field(default=None, description="Host of the object storage.")
    region: str | None = wire_field(default=None, description="Region of the object storage.")


@tool("oss_upload", "wuying_oss")
class OssUpload(Tool):
    """Upload a file of the session to a bucket."""

    bucket: str = wire_field(description="Name of the bucket.")
    object: str = wire_field(description="Name of the object.")
    path: str = wire_field(description="The file.")


@tool("oss_upload_annon", "wuying_oss")
class OssUploadAnonymous(Tool):
    """Upload a file of the session to a presigned URL."""

    url: str = wire_field(repr=False, description="The presigned URL.")
    path: str = wire_field(description="The file.")


@tool("oss_download", "wuying_oss")
class OssDownload(Tool):
    """Download an object of a bucket into a file of the session."""

    bucket: str = wire_field(description="Name of the bucket.")
    object: str = wire_field(description="Name of the object.")
    path: str = wire_field(description="The file.")


@tool("oss_download_annon", "wuying_oss")
class OssDownloadAnonymous(Tool):
    """Download a presigned URL into a file of the session."""

    url: str = wire_field(repr=False, description="The presigned URL.")
    path: str = wire_field(description="The file.")
