"""The protocol over a session's WebSocket, without sockets and clocks.

| exchange | its answer                                                                   |
|----------|------------------------------------------------------------------------------|
| call     | the first frame with its id                                                  |
| stream   | frames of phase `event`, up to one of phase `end` or `error`                 |
| one-way  | none                                                                         |
| push     | none: an unrequested frame, told apart by its source                         |

A frame of the control plane (`WEBSOCKET_SERVER`) ends an exchange of either kind, whatever else it holds.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

from .._wire.converter import MalformedError
from .._wire.frames import CLIENT_SOURCE, CONTROL_SOURCE, Frame, decode_frame
from ..errors import AgentBayError, APIError, ReplyError, ToolError
from .redaction import redact
from .reply import HttpAnswer, api_error_class

_MAX_MESSAGE_CHARACTERS = 2000  # of a service's error text, which may be a whole page


class ExchangeKind(Enum):
    """The kind of answer that an exchange waits for."""

    CALL = "call"
    STREAM = "stream"


class StreamEvent(NamedTuple):
    """An event of a stream."""

    id: str
    data: dict[str, Any]


class ExchangeEnded(NamedTuple):
    """The end of an exchange, with data or an error."""

    id: str
    data: dict[str, Any]
    error: AgentBayError | None = None


class PushMessage(NamedTuple):
    """An unrequested frame, for the listeners of a target."""

    id: str
    target: str
    data: dict[str, Any]


class IgnoredFrame(NamedTuple):
    """A frame without meaning.

    Attributes:
        why: The reason, which quotes nothing of the frame.
    """

    why: str


Arrival: TypeAlias = StreamEvent | ExchangeEnded | PushMessage | IgnoredFrame


class _PendingExchange(NamedTuple):
    kind: ExchangeKind
    target: str


class PendingExchanges:
    """The exchanges of one connection that have no complete answer yet."""

    def __init__(self) -> None:
        self._pending: dict[str, _PendingExchange] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def begin(self, kind: ExchangeKind, target: str, data: dict[str, Any]) -> Frame:
        """Begin an exchange, and return the frame to send."""
        frame = make_frame(target, data)
        self._pending[frame.id] = _PendingExchange(kind, target)
        return frame

    def make_follow_up(self, frame_id: str, data: dict[str, Any]) -> Frame | None:
        """Return a further frame of an exchange, or None if it is over."""
        awaited = self._pending.get(frame_id)
        return None if awaited is None else Frame(frame_id, awaited.target, data)

    def is_pending(self, frame_id: str) -> bool:
        """Return whether an exchange still waits for an answer."""
        return frame_id in self._pending

    def end(self, frame_id: str) -> bool:
        """End an exchange from this side, and return whether it was still pending.

        Frames that still come for it are ignored.
        """
        return self._pending.pop(frame_id, None) is not None

    def end_all(self) -> list[str]:
        """End all exchanges, as after a lost connection, and return their ids."""
        ids = []
        while self._pending:  # one by one, since another thread may begin one meanwhile
            ids.append(self._pending.popitem()[0])
        return ids

    def receive(self, text: str | bytes) -> Arrival:
        """Return what a frame that arrived means."""
        try:
            frame = decode_frame(text)
        except MalformedError as error:
            return IgnoredFrame(str(error))
        awaited = self._pending.get(frame.id)
        if awaited is None:
            return _classify_push(frame)
        arrival = _classify_answer(frame, awaited)
        if isinstance(arrival, ExchangeEnded):
            self.end(frame.id)
        return arrival


def make_frame(target: str, data: dict[str, Any]) -> Frame:
    """Return a frame with an id of its own."""
    return Frame(uuid.uuid4().hex, target, data)


def make_cancel_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of the frame that cancels a stream.

    The published protocol has none: its client just stops listening. A service that does not know this frame ignores
    it, and one that does saves the rest of the work.
    """
    return {"method": data.get("method", ""), "mode": "stream", "phase": "cancel"}


def handshake_error(status: int, headers: Mapping[str, str]) -> APIError:
    """Return the error for a refused WebSocket handshake, by its HTTP status."""
    lower = {name.lower(): value for name, value in headers.items()}
    kind = api_error_class(HttpAnswer(status, lower, b"", "WebSocket"), "")
    return kind(
        f"The service refused the WebSocket connection with HTTP {status}.",
        status,
        action="WebSocket",
        hint="The session may have ended, or its token: get it again with get()." if status in (401, 403, 404) else "",
    )


def _classify_push(frame: Frame) -> Arrival:
    target = frame.target
    if target == CLIENT_SOURCE and frame.source not in ("", CLIENT_SOURCE):
        target = frame.source
    if not target or frame.data is None:
        return IgnoredFrame("it has no target, or no data")
    return PushMessage(frame.id, target, frame.data)


def _classify_answer(frame: Frame, awaited: _PendingExchange) -> Arrival:
    if frame.source == CONTROL_SOURCE:
        text = frame.error or _error_text((frame.data or {}).get("error"))
        return ExchangeEnded(frame.id, frame.data or {}, _tool_error(text, awaited) if text else None)
    if not frame.target or frame.data is None:
        return _unreadable_answer(frame, awaited, "has no target" if frame.data is not None else "has no data")
    error = frame.data.get("error")
    if isinstance(error, str) and error:
        return ExchangeEnded(frame.id, frame.data, _tool_error(error, awaited))
    return (_classify_call_answer if awaited.kind is ExchangeKind.CALL else _classify_stream_frame)(
        frame, frame.data, awaited
    )


def _classify_call_answer(frame: Frame, data: dict[str, Any], awaited: _PendingExchange) -> Arrival:
    error = data.get("error")
    if data.get("result") is None and isinstance(error, dict) and error:
        return ExchangeEnded(frame.id, data, _tool_error(_error_text(error), awaited, _error_code(error)))
    return ExchangeEnded(frame.id, data)


def _classify_stream_frame(frame: Frame, data: dict[str, Any], awaited: _PendingExchange) -> Arrival:
    phase = data.get("phase")
    if phase == "event":
        return StreamEvent(frame.id, data)
    if phase == "end":
        return ExchangeEnded(frame.id, data)
    if phase == "error":
        error = data.get("error", data)
        return ExchangeEnded(frame.id, data, _tool_error(_error_text(error), awaited, _error_code(error)))
    return _unreadable_answer(frame, awaited, "has no phase" if phase is None else "has an unknown phase")


def _tool_error(text: str, awaited: _PendingExchange, code: str = "") -> ToolError:
    # Redacted before it is cut: of a secret that is cut in half, no pattern would find the rest.
    return ToolError(redact(text)[:_MAX_MESSAGE_CHARACTERS], action=awaited.target, code=code)


def _unreadable_answer(frame: Frame, awaited: _PendingExchange, why: str) -> ExchangeEnded:
    message = f"The answer of {awaited.target} {why}."
    return ExchangeEnded(frame.id, {}, ReplyError(message, action=awaited.target, request_id=frame.id))


def _error_text(error: object) -> str:
    """Return an error's text, which an object has under one of several names."""
    if isinstance(error, Mapping):
        for name in ("message", "error", "errorMessage"):
            if isinstance(error.get(name), str) and error[name]:
                return str(error[name])
        return json.dumps(error, ensure_ascii=False, default=str)
    return error if isinstance(error, str) else ""


def _error_code(error: object) -> str:
    code = error.get("code") if isinstance(error, Mapping) else None
    return str(code) if isinstance(code, (str, int)) else ""
