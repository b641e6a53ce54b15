"""Frames of a session's WebSocket: one JSON object a text frame, whose `data` is the business of its `target`."""

from __future__ import annotations

import json
from typing import Any

from attrs import field, frozen

from .converter import MalformedError

MAX_FRAME_BYTES = 64 << 20  # of one WebSocket message, in either direction
CLIENT_SOURCE = "SDK"  # how the client calls itself
CONTROL_SOURCE = "WEBSOCKET_SERVER"  # how the connection itself answers, instead of a target


@frozen
class Frame:
    """One frame.

    Attributes:
        id: What the frame belongs to: a request, all answers to it, or a push.
        target: Whom it is for; "" if the frame does not say.
        data: What is said; None if the frame has nothing that could be read.
        source: Who says it; "" if the frame does not say.
        error: A refusal that stands beside the data, or "".
    """

    id: str
    target: str
    data: dict[str, Any] | None = field(repr=False)
    source: str = CLIENT_SOURCE
    error: str = ""

    def encode(self) -> str:
        """Write it as JSON, compact."""
        body = {"invocationId": self.id, "source": self.source, "target": self.target, "data": self.data or {}}
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        # Lone surrogates, as in file names that are no UTF-8, cannot travel; written so they are JSON's own escapes.
        return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def decode_frame(text: str | bytes) -> Frame:
    """Read a frame, leniently: only its id is required, under either of two names.

    Raises:
        Malformed: It is no JSON object, or has no id.
    """
    try:
        body = json.loads(text)
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
        _parse_data(body.get("data")),
        _text_value(body, "source"),
        _text_value(body, "error"),
    )


def _text_value(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    return value if isinstance(value, str) else ""


def _parse_data(value: object) -> dict[str, Any] | None:
    if isinstance(value, str):  # some services wrap it once more
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None
