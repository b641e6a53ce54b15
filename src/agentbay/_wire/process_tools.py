"""Tools for background processes, which a session may offer or not.

A session that does not is driven by shell scripts instead.
"""

from __future__ import annotations

from .schema import Tool, tool, wire_field
from .tools import ARGV_DESCRIPTION, ENCODING_DESCRIPTION, ENCODINGS, MERGE_DESCRIPTION, STDIN_DESCRIPTION

_SERVER = "wuying_process"
_ID = "The process, by its id."
MAX_OUTPUT_BYTES = 4 << 20  # in one answer
MAX_WAIT_MS = 600_000


@tool("start_process", _SERVER)
class StartProcess(Tool):
    """Start a command that goes on in the background.

    Return its process id and pid. Its input stays open, and its output is kept until it is removed.
    """

    command: str = wire_field(description="The command line, run by sh.")
    process_id: str | None = wire_field(
        default=None,
        description="The id that it gets; one is chosen if absent. A process with this id is not started twice.",
    )
    cwd: str | None = wire_field(default=None, description="Working directory; the home directory if absent.")
    envs: dict[str, str] | None = wire_field(
        default=None, repr=False, description="Further environment variables, by name."
    )
    label: str | None = wire_field(default=None, description="What lists show instead of the command.")
    argv: list[str] | None = wire_field(default=None, description=ARGV_DESCRIPTION)
    stdin: str | None = wire_field(
        default=None, repr=False, description=f"{STDIN_DESCRIPTION} Then its input does not stay open."
    )
    stdin_encoding: str | None = wire_field(
        default=None, choices=ENCODINGS, description=f"{ENCODING_DESCRIPTION} Text if absent."
    )
    merge_stderr: bool | None = wire_field(default=None, description=MERGE_DESCRIPTION)


@tool("list_processes", _SERVER)
class ListProcesses(Tool):
    """List the background processes, the newest last.

    Those that have ended stay in the list until they are removed.
    """


@tool("read_process_output", _SERVER, raw_body=True)
class ReadProcessOutput(Tool):
    """Return output of a background process from an offset on.

    Its exit code is there too, if it has ended.
    """

    process_id: str = wire_field(description=_ID)
    stream: str = wire_field(default="stdout", choices=("stdout", "stderr"), description="The stream to read.")
    offset: int = wire_field(default=0, description="Where to begin, in bytes from the start of the stream.")
    max_bytes: int = wire_field(default=1 << 20, description="Most bytes to return.")
    wait_ms: int = wire_field(
        default=0, description="Milliseconds to wait for output beyond the offset, or for the end of the process."
    )
    encoding: str = wire_field(default="utf-8", choices=ENCODINGS, description=ENCODING_DESCRIPTION)


@tool("wait_process", _SERVER)
class WaitProcess(Tool):
    """Wait for the end of a background process.

    Return its exit code, or none if it still runs.
    """

    process_id: str = wire_field(description=_ID)
    timeout_ms: int = wire_field(default=0, description="Milliseconds to wait.")


@tool("write_process_input", _SERVER, raw_body=True)
class WriteProcessInput(Tool):
    """Write to the input of a background process.

    Return how many bytes are in its pipe, which are all unless time ran out.
    """

    process_id: str = wire_field(description=_ID)
    data: str = wire_field(default="", repr=False, description="What to write.")
    encoding: str = wire_field(default="utf-8", choices=ENCODINGS, description=ENCODING_DESCRIPTION)
    timeout_ms: int = wire_field(default=10_000, description="Milliseconds that the process has to take it.")
    close: bool = wire_field(default=False, description="Whether to end the input afterwards.")


@tool("signal_process", _SERVER)
class SignalProcess(Tool):
    """Send a signal to the group of a background process that still runs."""

    process_id: str = wire_field(description=_ID)
    signal: int = wire_field(description="The number of the signal on Linux, such as 15 for SIGTERM.")


@tool("remove_process", _SERVER)
class RemoveProcess(Tool):
    """Remove a background process that has ended, with its output."""

    process_id: str = wire_field(description=_ID)
    kill: bool = wire_field(
        default=False, description="Kill it first, with all it started, and let nothing start under its id any more."
    )
