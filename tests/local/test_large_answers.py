"""Large answers: whole, in pieces, and without much memory."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from agentbay.local.large_json_encoder import Base64Text, DecodedText, JsonText, encode_pieces
from tests.local.raw import embedded

LARGE = 32 << 20  # bytes
PIECES = [b"plain ", b"\x00\x1b\x7f", b'quotes "\\"', "ä€😀".encode(), b"\xff\xc3", b"\n\r\t\xe2\x80"]


@pytest.mark.parametrize("repetitions", [1, 60_000])
def test_pieces_are_the_whole(repetitions: int):
    """Values encoded in pieces are the JSON of the whole, and no piece is large."""
    data = b"".join(PIECES) * repetitions
    text = data.decode("utf-8", "replace")
    inner = {"stdout": DecodedText(data), "exit_code": 0, "none": None, "list": [1.5, True, text]}
    pieces = list(encode_pieces({"text": JsonText(inner), "base64": Base64Text(data), "more": [{}, [], text]}))
    assert max(len(piece) for piece in pieces) < 1 << 20
    found = json.loads("".join(pieces))
    expected = {"stdout": text, "exit_code": 0, "none": None, "list": [1.5, True, text]}
    assert json.loads(found["text"]) == expected
    assert found["base64"] == base64.b64encode(data).decode()
    assert found["more"] == [{}, [], text]


def peak_bytes(pid: int) -> int:
    """Return the most resident memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))


def test_memory_of_a_large_answer():
    """Output that JSON makes seven times as long is sent without being held in that form."""
    with embedded() as (child, wire), wire.session() as session:
        wire.stdout(session, "true")
        before = peak_bytes(child.process.pid)
        fields = {"SessionId": session, "Name": "shell", "Server": "", "Authorization": f"Bearer {wire.key}"}
        arguments = {"command": f"head -c {LARGE} /dev/zero", "timeout_ms": 60_000}
        form = {**fields, "Args": json.dumps(arguments)}
        received = 0
        with wire.http.stream("POST", "/", params={"Action": "CallMcpTool"}, data=form) as answer:
            for piece in answer.iter_raw():
                received += len(piece)
        assert received > 7 * LARGE
        assert peak_bytes(child.process.pid) - before < 5 * LARGE
