"""Frames of a session's WebSocket, each a JSON object in a text frame."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .._lazy_attrs import define, field
from .converter import MalformedError

MAX_FRAME_BYTES = 64 << 20  # of one WebSocket message, in either direction
MAX_REQUEST_FRAME_BYTES = 8 << 20  # that the local runtime accepts, since it decodes a frame in one go
LIMIT_HEADER = "x-max-frame-bytes"  # in the answer to the handshake, of a service that takes less than the client sends
CLIENT_SOURCE = "SDK"  # the client's own frames
CONTROL_SOURCE = "WEBSOCKET_SERVER"  # frames of the WebSocket server itself, such as "there is no such target"


@define(frozen=True, slots=False)
class Frame:
    """One frame of a session's WebSocket.

    Attributes:
        id: Id of the request, the same in all answers to it; a push has its own.
        target: The receiver, which decides what `data` means; "" if the frame names none.
        data: The message; None if it cannot be read.
        source: The sender; "" if the frame names none.
        error: A refusal that stands beside the data, or "".
    """

    id: str
    target: str
    data: dict[str, Any] | None = field(repr=False)
    source: str = CLIENT_SOURCE
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the frame as a JSON object."""
        return {"invocationId": self.id, "source": self.source, "target": self.target, "data": self.data or {}}

    def encode(self) -> str:
        """Return the frame as compact JSON."""
        text = json.dumps(self.to_json(), ensure_ascii=False, separators=(",", ":"))
        # Lone surrogates, as in file names that are not UTF-8, cannot be encoded: write them as JSON's own escapes.
        return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def decode_frame(text: str | bytes, load_json: Callable[[str | bytes], Any] = json.loads) -> Frame:
    """Read a frame, of which only the id is required.

    Args:
        load_json: Reads its JSON.

    Raises:
        MalformedError: If it is no JSON object, or has no id under either of its two names.
    """
    try:
        body = load_json(text)
    except (ValueError, RecursionError) as error:
        raise MalformedError("it is not JSON") from error
    if not isinstance(body, dict):
        raise MalformedError("it is not an object")
    frame_id = _text_value(body, "invocationId") or _text_value(body, "requestId")
    if not frame_id:
        raise MalformedError("it has no invocationId")
    return Frame(
        frame_id,
        _text_value(body, "target"),
        _parse_data(body.get("data"), load_json),
        _text_value(body, "source"),
        _text_value(body, "error"),
    )


def _text_value(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    return value if isinstance(value, str) else ""


def _parse_data(value: object, load_json: Callable[[str | bytes], Any]) -> dict[str, Any] | None:
    if isinstance(value, str):  # some services send it as JSON text
        try:
            value = load_json(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None
