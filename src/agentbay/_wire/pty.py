"""Requests, answers and pushes of terminals, over a session's WebSocket."""

from __future__ import annotations

import base64
import binascii

from .converter import MalformedError
from .schema import camel_payload, wire_field

PTY_TARGET = "PTY_SERVER"
MAX_TERMINAL_SIZE = 500  # columns, and rows
OUTPUT_EVENT, EXIT_EVENT, ERROR_EVENT = "pty.output", "pty.exit", "pty.error"


@camel_payload
class PtyCreate:
    """Start a program in a new terminal.

    Attributes:
        shell: The program; absent means the session's own shell.
        listening: Whether the client takes output as soon as it has the answer; the published client does not.
        echo: Whether the terminal shows what is typed; absent means that it does. For the local runtime only.
    """

    cols: int = 80
    rows: int = 24
    cwd: str | None = None
    envs: dict[str, str] = wire_field(factory=dict)
    shell: str | None = None
    listening: bool | None = None
    echo: bool | None = None


@camel_payload
class PtyRef:
    """Name a terminal.

    Attributes:
        listening: Whether recent output comes in the answer, instead of in a push.
    """

    pty_session_id: str
    listening: bool | None = None


@camel_payload
class PtyInput:
    """Type into a terminal: `data` is text if the encoding is utf8, else base64.

    Attributes:
        acknowledge: Whether an answer is wanted once the input was taken; only where `PtyAnswer` offers that.
    """

    pty_session_id: str
    encoding: str = "utf8"
    data: str = ""
    acknowledge: bool | None = None


@camel_payload
class PtyResize:
    """Change the size of a terminal."""

    pty_session_id: str
    cols: int
    rows: int


@camel_payload
class PtyEntry:
    """A terminal in a list, whose `status` is running or exited."""

    pty_session_id: str
    cols: int = 0
    rows: int = 0
    status: str = "running"
    exit_code: int | None = None


@camel_payload
class PtyAnswer:
    """The answer of `PTY_SERVER`.

    `pty_sessions`, `replay`, `exit_code` and `acknowledges_input` come from the local runtime only.
    """

    pty_session_id: str = ""
    pty_session_ids: list[str] = wire_field(factory=list)
    pty_sessions: list[PtyEntry] | None = None
    replay: str = ""
    exit_code: int | None = None
    acknowledges_input: bool | None = None


@camel_payload
class PtyPush:
    """A push about output, the end or a failure of a terminal, by `event_type`."""

    event_type: str
    pty_session_id: str = ""
    encoding: str | None = None
    data: str | None = None
    exit_code: int | None = None
    error: str | None = None


def encode_bytes(data: bytes) -> tuple[str, str]:
    """Return the encoding, utf8 or else base64, and the bytes written in it."""
    try:
        return "utf8", data.decode("utf-8")
    except UnicodeDecodeError:
        return "base64", base64.b64encode(data).decode("ascii")


def decode_bytes(encoding: str | None, text: str) -> bytes:
    """Return the bytes that `encode_bytes` has written.

    Raises:
        MalformedError: If the encoding is unknown, or the text is not base64 although it should be.
    """
    if encoding in (None, "", "utf8"):
        # The escapes of JSON can carry lone surrogates, which strict UTF-8 refuses.
        return text.encode("utf-8", "surrogatepass")
    if encoding != "base64":
        raise MalformedError(f"unknown encoding {encoding!r:.40}")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedError("it is not base64") from error
