"""Events that wait for a slow client."""

from __future__ import annotations

import json
from collections import deque

from hypothesis import given, strategies as st

from agentbay._transport.code_stream import CodeEventCollector
from agentbay.local.handlers.code_stream import _Cleared, _Event, _Shown, _Text, _without_replaced
from agentbay.local.kernels.byte_budget import ByteBudget
from agentbay.local.kernels.execution_output import Display, ExecutionOutput
from agentbay.models.code import CodeStdout


class Recording(ExecutionOutput):
    """An output that keeps its events."""

    def __init__(self) -> None:
        super().__init__()
        self.events: deque[_Event] = deque()

    def on_text(self, stream: str, text: str) -> None:
        self.events.append(_Text(stream, text))

    def on_display(self, display: Display, *, replaces: bool) -> None:
        self.events.append(_Shown(display, replaces))

    def on_clear(self) -> None:
        self.events.append(_Cleared())


def seen(events: deque[_Event]) -> tuple[str, list[str | None]]:
    """What a client has of events: the text that was written, and what is shown in the end."""
    collector, written = CodeEventCollector(), ""
    for event in events:
        match event:
            case _Text(stream, text):
                told = collector.add_event({"eventType": stream, "chunk": text})
                assert isinstance(told, CodeStdout)
                written += told.text
            case _Shown(display, replaces):
                facts = {"result": json.loads(display.json), "display": display.id, "update": replaces}
                collector.add_event({"eventType": "result", **facts})
            case _Cleared():
                collector.add_event({"eventType": "clear"})
    return written, [shown.text for shown in collector.make_result({}, "R-1").results]


STEPS = st.one_of(
    st.tuples(st.just("show"), st.sampled_from([None, "a", "b"]), st.booleans()),
    st.tuples(st.just("clear"), st.none(), st.booleans()),
    st.tuples(st.just("print"), st.none(), st.none()),
)


@given(st.lists(STEPS, max_size=12), st.integers(0, 12))
def test_dropped_events_change_nothing(steps: list[tuple[str, str | None, bool | None]], sent: int) -> None:
    """A client that missed what was replaced or cleared ends with the same displays as the service."""
    output = Recording()
    output.start(ByteBudget())
    for number, (step, display, flag) in enumerate(steps):
        if step == "show":
            output.add_display({"text/plain": str(number)}, main=False, display=display, update=flag is True)
        elif step == "clear":
            output.clear(wait=flag is True)
        else:
            output.add_output("stdout", f"{number}\n".encode())
    events = list(output.events)
    shortened = deque(events[:sent]) + _without_replaced(events[sent:])
    assert seen(shortened) == seen(output.events)
    assert seen(shortened)[1] == [display.plain_text for display in output.displays]
