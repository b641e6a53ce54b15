"""The stream of a run's output, as events while the code runs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from typing import Any, NamedTuple, TypeAlias

from agentbay.local.kernels.connection import MAX_FRAME_VALUES
from agentbay.local.kernels.execution_output import Display, ExecutionOutput
from agentbay.local.large_json_decoder import load_json
from agentbay.local.sessions.hub import WebSocketRequest
from agentbay.local.worker_thread import run_by_size

_FRAME_OVERHEAD_BYTES = 4096  # of a frame, beside the result itself
_MAX_UNSENT_BYTES = 16 << 20  # of displays, before those are dropped that others have replaced since
_EVENT_OVERHEAD_BYTES = 500  # that an event in the queue takes beside its content


class _Text(NamedTuple):
    stream: str
    text: str


class _Shown(NamedTuple):
    display: Display
    replaces: bool


class _Cleared(NamedTuple):
    pass


_Event: TypeAlias = _Text | _Shown | _Cleared


class StreamingOutput(ExecutionOutput):
    """Output of a run that is sent as events while the code runs.

    A client that is slower than the code may miss displays that others have replaced, and gets every last one.

    Args:
        largest_frame: Bytes of the largest frame that the client reads.
        with_updates: Whether the client understands that displays replace each other. Any other client gets all
            displays at the end, in their last state.
    """

    def __init__(self, largest_frame: int, *, with_updates: bool) -> None:
        super().__init__()
        self._max_result_bytes = largest_frame - _FRAME_OVERHEAD_BYTES
        self._with_updates = with_updates
        self._unsent: deque[_Event] = deque()
        self._unsent_bytes, self._compact_above = 0, _MAX_UNSENT_BYTES
        self._wakeup = asyncio.Event()
        self._closed = False

    def on_text(self, stream: str, text: str) -> None:
        self._unsent.append(_Text(stream, text))
        self._wakeup.set()

    def on_display(self, display: Display, *, replaces: bool) -> None:
        if self._with_updates:
            self._add(_Shown(display, replaces))

    def on_clear(self) -> None:
        if self._with_updates:
            self._add(_Cleared())

    def close(self) -> None:
        """Mark the end of the events."""
        if not self._with_updates:
            self._unsent.extend(_Shown(display, replaces=False) for display in self.displays)
        self._closed = True
        self._wakeup.set()

    async def send_events(self, request: WebSocketRequest) -> None:
        """Send events until `close`."""
        while not self._closed or self._unsent:
            await self._wakeup.wait()
            self._wakeup.clear()
            while self._unsent:
                event = self._unsent.popleft()
                self._unsent_bytes -= _size(event)
                await self._send(request, event)

    async def _send(self, request: WebSocketRequest, event: _Event) -> None:
        match event:
            case _Text(stream, text):
                await request.send_event(stream, chunk=text)
            case _Shown(display, replaces):
                result = await run_by_size(len(display.json), self._fit_into_frame, display)
                fields: dict[str, Any] = {"result": result}
                if self._with_updates and display.id is not None:
                    fields |= {"display": display.id, "update": replaces}
                await request.send_event("result", **fields)
            case _Cleared():
                await request.send_event("clear")

    def _add(self, event: _Shown | _Cleared) -> None:
        self._unsent.append(event)
        self._unsent_bytes += _size(event)
        if self._unsent_bytes > self._compact_above:
            self._unsent = _without_replaced(self._unsent)
            self._unsent_bytes = sum(map(_size, self._unsent))
            self._compact_above = max(_MAX_UNSENT_BYTES, 2 * self._unsent_bytes)
        self._wakeup.set()

    def _fit_into_frame(self, display: Display) -> dict[str, Any]:
        # Clients look for the forms of a result in two places. They stand in both if that fits into a frame.
        mime: dict[str, Any] = load_json(display.json, MAX_FRAME_VALUES)
        main = {"isMainResult": mime.pop("isMainResult")}
        if display.size > self._max_result_bytes:
            return {**main, "mime": {"text/plain": f"[left out: {display.size} bytes are more than a frame may have]"}}
        return {**main, **mime, "mime": mime} if 2 * display.size <= self._max_result_bytes else {**main, "mime": mime}


def _size(event: _Event) -> int:
    """Return the bytes that an event counts for.

    Text has a limit of its own.
    """
    if isinstance(event, _Text):
        return 0
    return _EVENT_OVERHEAD_BYTES + (event.display.size if isinstance(event, _Shown) else 0)


def _without_replaced(events: Collection[_Event]) -> deque[_Event]:
    """Return the events without displays that others have replaced or cleared."""
    cleared = max((index for index, event in enumerate(events) if isinstance(event, _Cleared)), default=-1)
    updates = {
        event.display.id: (index, event.display)
        for index, event in enumerate(events)
        if isinstance(event, _Shown) and event.replaces
    }
    kept: deque[_Event] = deque()
    for index, event in enumerate(events):
        if isinstance(event, _Text) or index == cleared:
            kept.append(event)
        elif isinstance(event, _Shown) and index > cleared:
            updated, last = updates.get(event.display.id, (index, event.display))
            if not event.replaces:
                kept.append(_Shown(last if updated > index else event.display, replaces=False))
            elif updated == index:
                kept.append(event)
    return kept
