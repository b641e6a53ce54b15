"""Frames of a session's WebSocket: one JSON object a text frame, whose `data` is the business of its `target`."""

from __future__ import annotations

import json
from typing import Any

from attrs import field, frozen

from .converter import Malformed

CLIENT = "SDK"  # how the client calls itself
CONTROL = "WEBSOCKET_SERVER"  # how the connection itself answers, instead of a target


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
    source: str = CLIENT
    error: str = ""

    def encode(self) -> str:
        """Write it as JSON, compact."""
        body = {"invocationId": self.id, "source": self.source, "target": self.target, "data": self.data or {}}
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        # Lone surrogates, as in file names that are no UTF-8, cannot travel; written so they are JSON's own escapes.
        return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def decode(text: str | bytes) -> Frame:
    """Read a frame, leniently: only its id is required, under either of two names.

    Raises:
        Malformed: It is no JSON object, or has no id.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed("it is not JSON") from error
    if not isinstance(body, dict):
        raise Malformed("it is not an object")
    frame_id = _text(body, "invocationId") or _text(body, "requestId")
    if not frame_id:
        raise Malformed("it has no invocationId")
    return Frame(frame_id, _text(body, "target"), _data(body.get("data")), _text(body, "source"), _text(body, "error"))


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    return value if isinstance(value, str) else ""


def _data(value: object) -> dict[str, Any] | None:
    if isinstance(value, str):  # some services wrap it once more
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None
