"""The WebSocket protocol, frame by frame, without a socket."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from agentbay import AgentBayError, ReplyError, ToolError
from agentbay._transport.ws_protocol import (
    ExchangeEnded,
    ExchangeKind,
    IgnoredFrame,
    PendingExchanges,
    PushMessage,
    StreamEvent,
    make_cancel_data,
    make_frame,
)
from agentbay._wire.converter import MalformedError
from agentbay._wire.frames import Frame, decode_frame
from agentbay._wire.pty import decode_bytes, encode_bytes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
TEXT = st.text(min_size=1, max_size=12)
DATA = st.dictionaries(st.sampled_from(["phase", "error", "result", "eventType", "x"]), JSON, max_size=4)


def service_frame(exchange_id: str, data: object, **more: object) -> str:
    """Return a service's frame."""
    return json.dumps({"invocationId": exchange_id, "source": "T", "target": "SDK", "data": data, **more})


def exchange_begun(kind: ExchangeKind) -> tuple[PendingExchanges, Frame]:
    """Return the exchanges of a connection with one exchange_begun."""
    exchanges = PendingExchanges()
    return exchanges, exchanges.begin(kind, "T", {"method": "m"})


def test_request() -> None:
    """A request has exactly four keys, compact, and reads back equal."""
    exchanges, frame = exchange_begun(ExchangeKind.CALL)
    text = frame.encode()
    expected = f'{{"invocationId":"{frame.id}","source":"SDK","target":"T","data":{{"method":"m"}}}}'
    assert text == expected
    assert decode_frame(text) == frame
    assert len(exchanges) == 1


@given(st.builds(Frame, TEXT, TEXT, DATA, TEXT))
def test_frames_read_back(frame: Frame) -> None:
    """Any frame reads back equal, also with lone surrogates."""
    assert decode_frame(frame.encode()) == frame
    frame.encode().encode("utf-8")


@given(st.text() | st.binary() | JSON.map(json.dumps))
def test_anything_may_arrive(text: str | bytes) -> None:
    """No frame raises, or ends an exchange that it does not name."""
    exchanges, _ = exchange_begun(ExchangeKind.CALL)
    assert isinstance(exchanges.receive(text), (IgnoredFrame, PushMessage))
    assert len(exchanges) == 1
    try:
        assert decode_frame(text).id
    except MalformedError:
        pass


@given(
    st.sampled_from(ExchangeKind),
    DATA | JSON,
    st.dictionaries(st.sampled_from(["source", "target", "error"]), JSON | st.just("WEBSOCKET_SERVER"), max_size=3),
)
def test_any_answer(kind: ExchangeKind, data: object, more: dict[str, Any]) -> None:
    """Any answer continues or ends its exchange, once."""
    exchanges, frame = exchange_begun(kind)
    arrival = exchanges.receive(service_frame(frame.id, data, **more))
    assert isinstance(arrival, (StreamEvent, ExchangeEnded))
    assert arrival.id == frame.id
    if isinstance(arrival, StreamEvent):
        assert kind is ExchangeKind.STREAM
        assert len(exchanges) == 1
        return
    assert arrival.error is None or isinstance(arrival.error, (ToolError, ReplyError))
    assert len(exchanges) == 0
    assert isinstance(exchanges.receive(service_frame(frame.id, data, **more)), (PushMessage, IgnoredFrame))


@pytest.mark.parametrize(
    ("kind", "data", "more", "result"),
    [
        (ExchangeKind.CALL, {"result": {"a": 1}}, {}, {"result": {"a": 1}}),
        (ExchangeKind.CALL, {}, {}, {}),
        (ExchangeKind.CALL, {"phase": "event"}, {}, {"phase": "event"}),
        (ExchangeKind.CALL, {"result": 0, "error": {"code": 1}}, {}, {"result": 0, "error": {"code": 1}}),
        (ExchangeKind.CALL, {"error": {}}, {}, {"error": {}}),
        (ExchangeKind.CALL, '{"result": 1}', {}, {"result": 1}),
        (ExchangeKind.STREAM, {"phase": "end", "status": "finished"}, {}, {"phase": "end", "status": "finished"}),
        (ExchangeKind.STREAM, {"a": 1}, {"source": "WEBSOCKET_SERVER"}, {"a": 1}),
        (ExchangeKind.STREAM, None, {"source": "WEBSOCKET_SERVER", "target": ""}, {}),
    ],
)
def test_ends_well(kind: ExchangeKind, data: object, more: dict[str, Any], result: dict[str, Any]) -> None:
    """These answers mean success."""
    exchanges, frame = exchange_begun(kind)
    assert exchanges.receive(service_frame(frame.id, data, **more)) == ExchangeEnded(frame.id, result)


@pytest.mark.parametrize(
    ("kind", "data", "more", "error", "message"),
    [
        (ExchangeKind.CALL, {"error": "bad"}, {}, ToolError, "bad"),
        (ExchangeKind.CALL, {"error": {"message": "bad", "code": "C"}}, {}, ToolError, "bad"),
        (ExchangeKind.CALL, {"error": {"errorMessage": "bad"}}, {}, ToolError, "bad"),
        (ExchangeKind.CALL, {"error": {"why": "bad"}}, {}, ToolError, '{"why": "bad"}'),
        (ExchangeKind.STREAM, {"phase": "event", "error": "bad"}, {}, ToolError, "bad"),
        (ExchangeKind.STREAM, {"phase": "error", "error": {"message": "bad"}}, {}, ToolError, "bad"),
        (ExchangeKind.STREAM, {"phase": "error", "message": "bad"}, {}, ToolError, "bad"),
        (ExchangeKind.STREAM, {"phase": 7}, {}, ReplyError, "unknown phase"),
        (ExchangeKind.STREAM, {}, {}, ReplyError, "no phase"),
        (ExchangeKind.CALL, [], {}, ReplyError, "no data"),
        (ExchangeKind.CALL, {}, {"target": ""}, ReplyError, "no target"),
        (ExchangeKind.CALL, {}, {"source": "WEBSOCKET_SERVER", "error": "bad"}, ToolError, "bad"),
        (ExchangeKind.CALL, {"error": "bad"}, {"source": "WEBSOCKET_SERVER"}, ToolError, "bad"),
    ],
)
def test_ends_badly(
    kind: ExchangeKind, data: object, more: dict[str, Any], error: type[AgentBayError], message: str
) -> None:
    """These answers mean failure, each with its own message."""
    exchanges, frame = exchange_begun(kind)
    arrival = exchanges.receive(service_frame(frame.id, data, **more))
    assert isinstance(arrival, ExchangeEnded)
    assert type(arrival.error) is error
    assert message in str(arrival.error)


@pytest.mark.parametrize(
    ("frame", "target"),
    [
        ({"requestId": "p", "target": "W", "data": {"a": 1}}, "W"),
        ({"invocationId": "p", "source": "W", "target": "SDK", "data": {"a": 1}}, "W"),
        ({"invocationId": "p", "source": "SDK", "target": "SDK", "data": {"a": 1}}, "SDK"),
        ({"invocationId": "p", "target": "SDK", "data": '{"a": 1}'}, "SDK"),
    ],
)
def test_push(frame: dict[str, Any], target: str) -> None:
    """An unrequested frame is a push for its target, or else of its source."""
    assert PendingExchanges().receive(json.dumps(frame)) == PushMessage("p", target, {"a": 1})


def test_follow_up_frames() -> None:
    """Further frames can be sent until the exchange ends."""
    exchanges, frame = exchange_begun(ExchangeKind.STREAM)
    more = exchanges.make_follow_up(frame.id, make_cancel_data({"method": "m"}))
    assert more == Frame(frame.id, "T", {"method": "m", "mode": "stream", "phase": "cancel"})
    assert exchanges.end(frame.id)
    assert not exchanges.end(frame.id)
    assert exchanges.make_follow_up(frame.id, {}) is None
    other = exchanges.begin(ExchangeKind.CALL, "T", {})
    assert exchanges.end_all() == [other.id]
    assert len(exchanges) == 0
    assert make_frame("T", {}).id != make_frame("T", {}).id


@given(st.binary())
def test_terminal_bytes(data: bytes) -> None:
    """Any bytes pass through text and back."""
    assert decode_bytes(*encode_bytes(data)) == data
    assert encode_bytes(data)[0] == ("utf8" if data.decode("utf-8", "ignore").encode() == data else "base64")


@pytest.mark.parametrize(("encoding", "text"), [("base64", "!"), ("latin-1", "x")])
def test_not_terminal_bytes(encoding: str, text: str) -> None:
    """Text that encodes no bytes is refused."""
    with pytest.raises(MalformedError):
        decode_bytes(encoding, text)
