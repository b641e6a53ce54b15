"""The protocol over a session's WebSocket, frame by frame, without a socket."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from agentbay import AgentBayError, ReplyError, ToolError
from agentbay._transport.ws import Ended, Event, Exchanges, Ignored, Kind, Push, cancelling, one_way
from agentbay._wire.converter import Malformed
from agentbay._wire.frames import Frame, decode
from agentbay._wire.pty import to_bytes, to_text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
TEXT = st.text(min_size=1, max_size=12)
DATA = st.dictionaries(st.sampled_from(["phase", "error", "result", "eventType", "x"]), JSON, max_size=4)


def said(exchange_id: str, data: object, **more: object) -> str:
    """A frame of a service."""
    return json.dumps({"invocationId": exchange_id, "source": "T", "target": "SDK", "data": data, **more})


def begun(kind: Kind) -> tuple[Exchanges, Frame]:
    """A machine with one exchange under way."""
    exchanges = Exchanges()
    return exchanges, exchanges.open(kind, "T", {"method": "m"})


def test_request() -> None:
    """A request is exactly these four keys, compact, and reads back as itself."""
    exchanges, frame = begun(Kind.CALL)
    text = frame.encode()
    expected = f'{{"invocationId":"{frame.id}","source":"SDK","target":"T","data":{{"method":"m"}}}}'
    assert text == expected
    assert decode(text) == frame
    assert len(exchanges) == 1


@given(st.builds(Frame, TEXT, TEXT, DATA, TEXT))
def test_frames_read_back(frame: Frame) -> None:
    """What is written is read as the same, lone surrogates and all."""
    assert decode(frame.encode()) == frame
    frame.encode().encode("utf-8")


@given(st.text() | st.binary() | JSON.map(json.dumps))
def test_anything_may_arrive(text: str | bytes) -> None:
    """Nothing that arrives raises, or ends what it does not name."""
    exchanges, _ = begun(Kind.CALL)
    assert isinstance(exchanges.receive(text), (Ignored, Push))
    assert len(exchanges) == 1
    try:
        assert decode(text).id
    except Malformed:
        pass


@given(
    st.sampled_from(Kind),
    DATA | JSON,
    st.dictionaries(st.sampled_from(["source", "target", "error"]), JSON | st.just("WEBSOCKET_SERVER"), max_size=3),
)
def test_any_answer(kind: Kind, data: object, more: dict[str, Any]) -> None:
    """Whatever is answered, an exchange goes on or ends, once; afterwards its id means nothing."""
    exchanges, frame = begun(kind)
    arrival = exchanges.receive(said(frame.id, data, **more))
    assert isinstance(arrival, (Event, Ended))
    assert arrival.id == frame.id
    if isinstance(arrival, Event):
        assert kind is Kind.STREAM
        assert len(exchanges) == 1
        return
    assert arrival.error is None or isinstance(arrival.error, (ToolError, ReplyError))
    assert len(exchanges) == 0
    assert isinstance(exchanges.receive(said(frame.id, data, **more)), (Push, Ignored))


@pytest.mark.parametrize(
    ("kind", "data", "more", "result"),
    [
        (Kind.CALL, {"result": {"a": 1}}, {}, {"result": {"a": 1}}),
        (Kind.CALL, {}, {}, {}),
        (Kind.CALL, {"phase": "event"}, {}, {"phase": "event"}),
        (Kind.CALL, {"result": 0, "error": {"code": 1}}, {}, {"result": 0, "error": {"code": 1}}),
        (Kind.CALL, {"error": {}}, {}, {"error": {}}),
        (Kind.CALL, '{"result": 1}', {}, {"result": 1}),
        (Kind.STREAM, {"phase": "end", "status": "finished"}, {}, {"phase": "end", "status": "finished"}),
        (Kind.STREAM, {"a": 1}, {"source": "WEBSOCKET_SERVER"}, {"a": 1}),
        (Kind.STREAM, None, {"source": "WEBSOCKET_SERVER", "target": ""}, {}),
    ],
)
def test_ends_well(kind: Kind, data: object, more: dict[str, Any], result: dict[str, Any]) -> None:
    """The answers that mean success."""
    exchanges, frame = begun(kind)
    assert exchanges.receive(said(frame.id, data, **more)) == Ended(frame.id, result)


@pytest.mark.parametrize(
    ("kind", "data", "more", "error", "message"),
    [
        (Kind.CALL, {"error": "bad"}, {}, ToolError, "bad"),
        (Kind.CALL, {"error": {"message": "bad", "code": "C"}}, {}, ToolError, "bad"),
        (Kind.CALL, {"error": {"errorMessage": "bad"}}, {}, ToolError, "bad"),
        (Kind.CALL, {"error": {"why": "bad"}}, {}, ToolError, '{"why": "bad"}'),
        (Kind.STREAM, {"phase": "event", "error": "bad"}, {}, ToolError, "bad"),
        (Kind.STREAM, {"phase": "error", "error": {"message": "bad"}}, {}, ToolError, "bad"),
        (Kind.STREAM, {"phase": "error", "message": "bad"}, {}, ToolError, "bad"),
        (Kind.STREAM, {"phase": 7}, {}, ReplyError, "unknown phase"),
        (Kind.STREAM, {}, {}, ReplyError, "no phase"),
        (Kind.CALL, [], {}, ReplyError, "no data"),
        (Kind.CALL, {}, {"target": ""}, ReplyError, "no target"),
        (Kind.CALL, {}, {"source": "WEBSOCKET_SERVER", "error": "bad"}, ToolError, "bad"),
        (Kind.CALL, {"error": "bad"}, {"source": "WEBSOCKET_SERVER"}, ToolError, "bad"),
    ],
)
def test_ends_badly(kind: Kind, data: object, more: dict[str, Any], error: type[AgentBayError], message: str) -> None:
    """The answers that mean failure, each with its own words."""
    exchanges, frame = begun(kind)
    arrival = exchanges.receive(said(frame.id, data, **more))
    assert isinstance(arrival, Ended)
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
    """A frame that nobody waits for is a push, by whom it is for or, if that is us, by whom it is from."""
    assert Exchanges().receive(json.dumps(frame)) == Push("p", target, {"a": 1})


def test_further_and_forgotten() -> None:
    """More can be said within an exchange as long as it lasts."""
    exchanges, frame = begun(Kind.STREAM)
    more = exchanges.further(frame.id, cancelling({"method": "m"}))
    assert more == Frame(frame.id, "T", {"method": "m", "mode": "stream", "phase": "cancel"})
    assert exchanges.forget(frame.id)
    assert not exchanges.forget(frame.id)
    assert exchanges.further(frame.id, {}) is None
    other = exchanges.open(Kind.CALL, "T", {})
    assert exchanges.forget_all() == [other.id]
    assert len(exchanges) == 0
    assert one_way("T", {}).id != one_way("T", {}).id


@given(st.binary())
def test_terminal_bytes(data: bytes) -> None:
    """Bytes pass through text and back, whatever they are."""
    assert to_bytes(*to_text(data)) == data
    assert to_text(data)[0] == ("utf8" if data.decode("utf-8", "ignore").encode() == data else "base64")


@pytest.mark.parametrize(("encoding", "text"), [("base64", "!"), ("latin-1", "x")])
def test_not_terminal_bytes(encoding: str, text: str) -> None:
    """What cannot be bytes is refused."""
    with pytest.raises(Malformed):
        to_bytes(encoding, text)
