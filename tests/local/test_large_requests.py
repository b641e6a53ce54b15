"""Large requests: read in pieces, as the whole would be, and within bounds."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote_from_bytes

import httpx
import pytest
from hypothesis import given, strategies as st

from agentbay.local import large_json_decoder
from agentbay.local.http.form import read_form
from agentbay.local.large_json_decoder import TooManyValuesError, decode_utf8, encode_utf8, load_json
from tests.local.raw import Wire

PIECES = ["a", "\\", '"', "\n", "😀", "\ud83d", "\ude00", "é", "[", ",", "{", "}", "x" * 9]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=30,
)
PIECE = 40  # as short as pieces can be here, so that escapes are cut


@pytest.fixture(autouse=True, scope="module")
def short_pieces() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_json_decoder, "LARGE_BYTES", -1)
        patch.setattr(large_json_decoder, "_PIECE_CHARACTERS", PIECE)
        patch.setattr(large_json_decoder, "_BATCH_CHARACTERS", PIECE)
        yield


def outcome(read: Any, text: str) -> str:
    """Return what a function reads, in a form in which NaN equals itself."""
    try:
        return repr(read(text))
    except ValueError:
        return "refused"


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_json_in_pieces(value: Any, ascii_only: bool, indent: int | None):
    """JSON is read in pieces as it is at once."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert load_json(text) == json.loads(text)


@given(VALUES, st.integers(0, 1000), st.sampled_from('"\\[],{}:1u '))
def test_malformed_json(value: Any, place: int, wrong: str):
    """What the standard library refuses is refused, and nothing else."""
    text = json.dumps(value)
    text = text[: place % len(text)] + wrong + text[place % len(text) + 1 :]
    assert outcome(load_json, text) == outcome(json.loads, text)


@pytest.mark.parametrize("item", ["[]", "{}", "1", '"a"', "[[],[]]", '{"a": {}}'])
def test_too_many_values(item: str):
    """JSON of very many values is refused before they are all made."""
    with pytest.raises(TooManyValuesError):
        load_json(f"[{','.join([item] * 600_000)}]")


def test_too_many_members():
    """So is an object of very many members."""
    with pytest.raises(TooManyValuesError):
        load_json(json.dumps({str(number): 1 for number in range(600_000)}))


@pytest.mark.parametrize("value", [["value"] * 10_000, {f"name-{number}": "value" for number in range(10_000)}])
def test_many_values_are_read_together(value: object, monkeypatch: pytest.MonkeyPatch):
    """Items of an array and members of an object take no Python call each."""
    monkeypatch.setattr(large_json_decoder, "_BATCH_CHARACTERS", 1 << 12)
    text, calls = json.dumps(value), 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        found = load_json(text)
    finally:
        sys.setprofile(None)
    assert found == value
    assert calls < 1000


@given(st.binary(max_size=200))
def test_utf8_in_pieces(data: bytes):
    """UTF-8 is decoded in pieces as it is at once, also what is none."""

    def decoded(decode: Callable[[bytes], str]) -> tuple[Any, ...]:
        try:
            return (decode(data),)
        except UnicodeDecodeError as error:
            return error.start, error.end, error.reason

    assert decoded(decode_utf8) == decoded(bytes.decode)
    text = data.decode("utf-8", "replace")
    assert encode_utf8(text) == text.encode()


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=5))
def test_forms_in_pieces(fields: list[tuple[str, str]]):
    """A form is read in pieces as it is at once."""
    pairs = ((quote_from_bytes(part.encode("utf-8", "replace"), " ").replace(" ", "+") for part in f) for f in fields)
    form = "&".join("=".join(pair) for pair in pairs)
    assert list(read_form(form.encode())) == parse_qsl(form, keep_blank_values=True)


@pytest.mark.parametrize("form", [b"a=%ff", b"a=\xff", b"&".join([b"a=1"] * 1001)])
def test_malformed_forms(form: bytes):
    """A form that is no text, or has very many fields, is refused."""
    with pytest.raises(ValueError, match=r"utf-8|ASCII|1,000"):
        list(read_form(form))


def test_large_writes(wire: Wire):
    """A large text arrives whole, by an action and by a direct call, whatever characters it has."""
    text = '"\\\n😀\u2028' * (1 << 20)
    facts = wire.data("CreateMcpSession")
    session = facts["SessionId"]
    wire.text(session, "write_file", path="/tmp/a", content=text, mode="overwrite")
    arguments = {"path": "/tmp/b", "content": text, "mode": "overwrite"}
    body = {"tool": "write_file", "args": arguments, "server": "", "requestId": "1", "token": facts["Token"]}
    headers = {"X-Access-Token": facts["Token"]}
    answer = httpx.post(f"{facts['LinkUrl']}/callTool", json=body, headers=headers, timeout=300, trust_env=False)
    assert not answer.json()["data"]["result"]["isError"]
    assert int(wire.stdout(session, "cat /tmp/a /tmp/b | wc -c")) == 2 * len(text.encode())
    wire.stdout(session, "cmp /tmp/a /tmp/b")
    wire.data("DeleteSessionAsync", SessionId=session)


def test_bombs_are_refused(wire: Wire):
    """A request of millions of lists is refused with the reason."""
    facts = wire.data("CreateMcpSession")
    headers = {"X-Access-Token": facts["Token"], "Content-Type": "application/json"}
    body = b'{"args": {"x": [' + b"[]," * (4 << 20) + b"[]]}}"
    answer = httpx.post(f"{facts['LinkUrl']}/callTool", content=body, headers=headers, timeout=300, trust_env=False)
    assert answer.status_code == 400
    assert "more than 500,000 values" in answer.json()["Message"]
    wire.data("DeleteSessionAsync", SessionId=facts["SessionId"])
