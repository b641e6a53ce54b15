"""The protocol over a session's WebSocket: which frame answers what. Knows neither sockets nor clocks.

| exchange | its answer                                                                   |
|----------|------------------------------------------------------------------------------|
| call     | the first frame with its id                                                  |
| stream   | frames of phase `event`, up to one of phase `end` or `error`                 |
| one-way  | none                                                                         |
| push     | none: a frame that nobody has asked for, told apart by whom it comes from    |

A frame of the control plane (`WEBSOCKET_SERVER`) ends an exchange of either kind, whatever else it holds.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

from .._wire.converter import Malformed
from .._wire.frames import CLIENT, CONTROL, Frame, decode
from ..errors import AgentBayError, APIError, ReplyError, ToolError
from .reply import Answer, _class_of
from .secrets import masked

_LONGEST_MESSAGE = 2000


class Kind(Enum):
    """What is awaited."""

    CALL = "call"
    STREAM = "stream"


class Event(NamedTuple):
    """Something happened in a stream."""

    id: str
    data: dict[str, Any]


class Ended(NamedTuple):
    """An exchange is over: with data, or with an error."""

    id: str
    data: dict[str, Any]
    error: AgentBayError | None = None


class Push(NamedTuple):
    """Something was said that nobody has asked for; `target` is what to look for listeners under."""

    id: str
    target: str
    data: dict[str, Any]


class Ignored(NamedTuple):
    """A frame that means nothing; `why` holds nothing of it."""

    why: str


Arrival: TypeAlias = Event | Ended | Push | Ignored


class _Awaited(NamedTuple):
    kind: Kind
    target: str


class Exchanges:
    """What has been asked over one connection and not been answered yet."""

    def __init__(self) -> None:
        self._awaited: dict[str, _Awaited] = {}

    def __len__(self) -> int:
        return len(self._awaited)

    def open(self, kind: Kind, target: str, data: dict[str, Any]) -> Frame:
        """Begin an exchange; return the frame to send."""
        frame = one_way(target, data)
        self._awaited[frame.id] = _Awaited(kind, target)
        return frame

    def further(self, frame_id: str, data: dict[str, Any]) -> Frame | None:
        """Return a further frame of an exchange, None if it is over."""
        awaited = self._awaited.get(frame_id)
        return None if awaited is None else Frame(frame_id, awaited.target, data)

    def forget(self, frame_id: str) -> bool:
        """End an exchange from this side; frames that still come for it mean nothing. False if it is over already."""
        return self._awaited.pop(frame_id, None) is not None

    def forget_all(self) -> list[str]:
        """End all, as when the connection is lost; return their ids."""
        ids = []
        while self._awaited:  # one by one: another thread may be about to begin one
            ids.append(self._awaited.popitem()[0])
        return ids

    def receive(self, text: str | bytes) -> Arrival:
        """Take a frame that arrived; say what it means."""
        try:
            frame = decode(text)
        except Malformed as error:
            return Ignored(str(error))
        awaited = self._awaited.get(frame.id)
        if awaited is None:
            return _push(frame)
        arrival = _answer(frame, awaited)
        if isinstance(arrival, Ended):
            self.forget(frame.id)
        return arrival


def one_way(target: str, data: dict[str, Any]) -> Frame:
    """Make a frame with an id of its own."""
    return Frame(uuid.uuid4().hex, target, data)


def cancelling(data: Mapping[str, Any]) -> dict[str, Any]:
    """What to say when a stream is cancelled that was begun with `data`.

    The published protocol has no word for it: its client just stops listening. This one means nothing to a service
    that does not know it, and spares one that does the rest of the work.
    """
    return {"method": data.get("method", ""), "mode": "stream", "phase": "cancel"}


def refusal(status: int, headers: Mapping[str, str]) -> APIError:
    """Make the error for a service that answers the request for a connection with an HTTP status."""
    lower = {name.lower(): value for name, value in headers.items()}
    kind = _class_of(Answer(status, lower, b"", "WebSocket"), "")
    return kind(
        f"The service refused the WebSocket connection with HTTP {status}.",
        status,
        action="WebSocket",
        hint="The session may have ended, or its token: get it again with get()." if status in (401, 403, 404) else "",
    )


def _push(frame: Frame) -> Arrival:
    target = frame.target
    if target == CLIENT and frame.source not in ("", CLIENT):
        target = frame.source
    if not target or frame.data is None:
        return Ignored("it belongs to nothing")
    return Push(frame.id, target, frame.data)


def _answer(frame: Frame, awaited: _Awaited) -> Arrival:
    if frame.source == CONTROL:
        said = frame.error or _error_text((frame.data or {}).get("error"))
        return Ended(frame.id, frame.data or {}, _failure(said, awaited) if said else None)
    if not frame.target or frame.data is None:
        return _unreadable(frame, awaited, "has no target" if frame.data is not None else "has no data")
    error = frame.data.get("error")
    if isinstance(error, str) and error:
        return Ended(frame.id, frame.data, _failure(error, awaited))
    return (_of_call if awaited.kind is Kind.CALL else _of_stream)(frame, frame.data, awaited)


def _of_call(frame: Frame, data: dict[str, Any], awaited: _Awaited) -> Arrival:
    error = data.get("error")
    if data.get("result") is None and isinstance(error, dict) and error:
        return Ended(frame.id, data, _failure(_error_text(error), awaited, _code(error)))
    return Ended(frame.id, data)


def _of_stream(frame: Frame, data: dict[str, Any], awaited: _Awaited) -> Arrival:
    phase = data.get("phase")
    if phase == "event":
        return Event(frame.id, data)
    if phase == "end":
        return Ended(frame.id, data)
    if phase == "error":
        error = data.get("error", data)
        return Ended(frame.id, data, _failure(_error_text(error), awaited, _code(error)))
    return _unreadable(frame, awaited, "has no phase" if phase is None else "has an unknown phase")


def _failure(text: str, awaited: _Awaited, code: str = "") -> ToolError:
    return ToolError(masked(text)[:_LONGEST_MESSAGE], action=awaited.target, code=code)


def _unreadable(frame: Frame, awaited: _Awaited, why: str) -> Ended:
    message = f"The answer of {awaited.target} {why}."
    return Ended(frame.id, {}, ReplyError(message, action=awaited.target, request_id=frame.id))


def _error_text(error: object) -> str:
    """Say in words what an error holds: text, or an object that has its text under one of several names."""
    if isinstance(error, Mapping):
        for name in ("message", "error", "errorMessage"):
            if isinstance(error.get(name), str) and error[name]:
                return str(error[name])
        return json.dumps(error, ensure_ascii=False, default=str)
    return error if isinstance(error, str) else ""


def _code(error: object) -> str:
    code = error.get("code") if isinstance(error, Mapping) else None
    return str(code) if isinstance(code, (str, int)) else ""
