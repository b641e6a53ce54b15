"""Direct calls with raw bytes, on the bare wire: who may make them, and what breaks off."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.local.raw import Child, Wire, embedded
from tests.scripted import eventually

OLD, NEW = b"old" * 1000, b"new" * 100_000


class RawSession:
    """A session, and raw calls to its link."""

    def __init__(self, wire: Wire, child: Child) -> None:
        made = wire.data("CreateMcpSession")
        self.id, self.link, self.token = made["SessionId"], made["LinkUrl"], made["Token"]
        self.wire, self.child = wire, child

    def headers(self, tool: str, args: dict[str, Any], **more: str) -> dict[str, str]:
        call = json.dumps({"tool": tool, "args": args})
        return {"content-type": "application/octet-stream", "x-access-token": self.token, "x-tool-call": call, **more}

    def call(self, tool: str, args: dict[str, Any], body: Any = b"", **more: str) -> httpx.Response:
        return self.wire.http.post(f"{self.link}/callTool", headers=self.headers(tool, args, **more), content=body)

    def begin(self, tool: str, args: dict[str, Any], length: int, body: bytes = b"") -> socket.socket:
        """Send a request whose body may be incomplete."""
        where = urlsplit(self.link)
        sock = socket.create_connection((where.hostname, where.port))
        lines = {"host": where.netloc, "content-length": str(length), **self.headers(tool, args)}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        sock.sendall(f"POST {where.path}/callTool HTTP/1.1\r\n{head}\r\n".encode() + body)
        return sock

    def stdout(self, command: str) -> str:
        return self.wire.stdout(self.id, command)

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.child.process.pid}/fd").iterdir()))


@pytest.fixture(scope="module")
def session() -> Iterator[RawSession]:
    with embedded() as (child, wire):
        session, counts = RawSession(wire, child), [-1]
        # The runtime makes spare sandboxes behind the first session, and each has descriptors in the service.
        while len(counts) < 5 or len(set(counts[-5:])) > 1:
            counts.append(session.open_files())
            time.sleep(0.2)
        yield session


def test_bytes_both_ways(session: RawSession):
    """The body is the file, and the answer is the file, from an offset too."""
    sent = session.call("write_file", {"path": "a", "content": ""}, NEW)
    assert sent.json()["data"]["result"]["isError"] is False
    got = session.call("read_file", {"path": "a", "offset": 3, "length": 7})
    assert (got.content, got.headers["content-type"]) == (NEW[3:10], "application/octet-stream")
    assert session.call("read_file", {"path": "a", "offset": len(NEW) + 1}).content == b""
    assert session.call("read_file", {"path": "a"}).content == NEW


@pytest.mark.parametrize("mode", ["overwrite", "append"])
def test_a_body_that_breaks_off(session: RawSession, mode: str):
    """The file stays as it was, and nothing is left beside it."""
    session.call("write_file", {"path": "kept/a", "content": ""}, OLD)
    before = session.open_files()
    with session.begin("write_file", {"path": "kept/a", "content": "", "mode": mode}, len(NEW), NEW[:200_000]):
        eventually(lambda: "kept/.agentbay" in session.stdout("find kept"))
    eventually(lambda: session.stdout("find kept | sort") == "kept\nkept/a\n")
    assert session.call("read_file", {"path": "kept/a"}).content == OLD
    eventually(lambda: session.open_files() <= before)


def test_an_endless_answer(session: RawSession):
    """A file of holes is not read on when its reader is gone."""
    session.stdout("truncate -s 1T holes")
    before = session.open_files()
    with session.begin("read_file", {"path": "holes", "length": 1 << 62}, 0) as sock:
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
        assert session.open_files() > before
    eventually(lambda: session.open_files() <= before)
    refused = session.call("read_file", {"path": "holes"}).json()["data"]["result"]
    assert "256 MiB" in refused["content"][0]["text"]


def test_a_file_that_becomes_shorter(session: RawSession):
    """What is missing breaks the answer off, and nothing else is taken for it."""
    session.stdout("head -c 200M /dev/zero > shrinks")
    with session.begin("read_file", {"path": "shrinks", "length": 1 << 62}, 0) as sock:
        got = len(sock.recv(1 << 16))
        session.stdout(": > shrinks")
        while piece := sock.recv(1 << 20):
            got += len(piece)
    assert got < 200 << 20


def test_input_and_output(session: RawSession):
    """Input of a process goes in and its output comes out as bytes, with the facts in a header."""
    wire = session.wire
    started = json.loads(wire.text(session.id, "start_process", command="cat", processId="p"))
    assert started["processId"] == "p"
    sent = session.call("write_process_input", {"processId": "p", "close": True, "timeoutMs": 9000}, b"\0\xff\n")
    assert json.loads(sent.json()["data"]["result"]["content"][0]["text"]) == {"sentBytes": 3}
    wire.text(session.id, "wait_process", processId="p", timeoutMs=60_000)
    got = session.call("read_process_output", {"processId": "p"})
    facts = json.loads(got.headers["x-tool-result"])
    assert (got.content, facts) == (b"\0\xff\n", {"exitCode": 0, "size": 3, "nextOffset": 3})
    lost = session.call("read_process_output", {"processId": "none"})
    assert lost.json()["data"]["result"]["isError"]
    late = session.call("write_process_input", {"processId": "p"}, b"x")
    assert "does not take input" in late.json()["data"]["result"]["content"][0]["text"]


def test_refusals(session: RawSession):
    """Only the session's token opens it, and what cannot be read is refused by name."""
    args = {"path": "refused", "content": ""}
    assert session.call("write_file", args, b"x", **{"x-access-token": "wrong"}).status_code == 401
    for text in ("", "[]", "{", '{"tool": 1, "args": {}}', '{"tool": "write_file"}'):
        refused = session.call("write_file", args, b"x", **{"x-tool-call": text})
        assert (refused.status_code, "x-tool-call" in refused.json()["Message"]) == (400, True)
    unmeasured = session.call("write_file", args, iter([b"x"]))
    assert (unmeasured.status_code, unmeasured.json()["Code"]) == (400, "MissingContentLength")
    for tool, wrong in (
        ("shell", {}),
        ("write_file", {}),
        ("write_file", {**args, "mode": "x"}),
        ("write_file", {"path": "a", "content": "x"}),
    ):
        assert session.call(tool, wrong, b"x").json()["data"]["result"]["isError"]
    assert session.call("read_file", {"path": "a", "offset": -1}).json()["data"]["result"]["isError"]
    assert session.call("read_file", {"path": "a\0b"}).json()["data"]["result"]["isError"]
    assert session.stdout("ls refused 2>&1 || true").endswith("No such file or directory\n")
