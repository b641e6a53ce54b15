"""What clients without a key can do to the service: little, and not for long."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.local.raw import Child, Wire, embedded
from tests.local.traces import PATIENCE, eventually, resident_bytes

PIECE = b"x" * (1 << 20)
MAX_FRAMING_BYTES = 32 << 20  # more than the buffers of a socket


@pytest.fixture
def runtime() -> Iterator[tuple[Child, Wire]]:
    """A runtime that may open 1024 files at most."""
    prlimit = shutil.which("prlimit")
    if prlimit is None:
        pytest.skip("there is no prlimit: apt-get install util-linux")
    with embedded(python=(prlimit, "--nofile=256:1024", sys.executable)) as found:
        yield found


def connect(wire: Wire) -> socket.socket:
    return socket.create_connection(("127.0.0.1", urlsplit(wire.url).port or 0), PATIENCE)


def is_closed(connection: socket.socket) -> bool:
    """Return whether the service has closed a connection, without waiting for it."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_half_a_head(wire: Wire):
    """A connection that does not send a whole head is closed, also behind a first request."""
    host = urlsplit(wire.url).netloc
    with connect(wire) as silent, connect(wire) as slow, connect(wire) as second:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
        second.sendall(f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert second.recv(12) == b"HTTP/1.1 200"
        while second.recv(1 << 16)[-1:] != b"}":
            pass
        second.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        for connection in (silent, slow, second):
            connection.settimeout(PATIENCE)
            assert connection.recv(1) == b""


def test_many_connections(runtime: tuple[Child, Wire]):
    """Connections without a key take neither the descriptors of sessions nor the place of clients with one."""
    child, wire = runtime
    limits = Path(f"/proc/{child.process.pid}/limits").read_text("ascii")
    (soft,) = (line.split()[3] for line in limits.splitlines() if line.startswith("Max open files"))
    assert soft == "1024"  # raised to the hard limit
    with wire.session() as session, ExitStack() as stack:
        connections = [stack.enter_context(connect(wire)) for _ in range(900)]
        for connection in connections:
            try:
                connection.sendall(b"POST / HTTP/1.1\r\n")
            except OSError:  # one of those that were closed at once
                pass
        assert wire.stdout(session, "echo one") == "one\n"
        with wire.session() as other:
            assert wire.stdout(other, "echo two") == "two\n"
        assert eventually(lambda: sum(not is_closed(connection) for connection in connections) <= 512)
        assert wire.stdout(session, "echo three") == "three\n"


def test_large_bodies(runtime: tuple[Child, Wire]):
    """Large bodies without a key take a bounded memory, and do not hold up those that show it."""
    child, wire = runtime
    before = resident_bytes(child.process.pid)
    head = f"POST / HTTP/1.1\r\nHost: {urlsplit(wire.url).netloc}\r\nContent-Length: {64 << 20}\r\n\r\n".encode()
    with wire.session() as session, ExitStack() as stack:
        connections = [stack.enter_context(connect(wire)) for _ in range(12)]
        for connection in connections:
            connection.sendall(head)
            for _ in range(30):
                connection.sendall(PIECE)
        wire.stdout(session, "true")  # by then it has read what was sent
        assert resident_bytes(child.process.pid) - before < 160 << 20
        answers = [connection for connection in connections if not _would_block(connection)]
        assert len(answers) >= 9
        assert all(connection.recv(12) == b"HTTP/1.1 503" for connection in answers)
        wire.text(session, "write_file", path="large", content="x" * (20 << 20))
        assert wire.stdout(session, "wc -c < large").strip() == str(20 << 20)


def _would_block(connection: socket.socket) -> bool:
    connection.settimeout(1)
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True


FRAMES = {
    "endless header": (b"GET /healthz HTTP/1.1\r\nX: ", b"a" * (1 << 16)),
    "endless headers": (b"GET /healthz HTTP/1.1\r\n", b"X: a\r\n" * (1 << 14)),
    "endless target": (b"GET /", b"a" * (1 << 16)),
    "endless chunk extension": (
        b"POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        b"a" * (1 << 16),
    ),
    "endless trailers": (
        b"POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"X: " + b"a" * (1 << 16) + b"\r\n",
    ),
    "chunks of a byte": (
        b"POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\na\r\n" * (1 << 14),
    ),
    "pipelined requests": (b"", b"GET /healthz HTTP/1.1\r\nHost: HOST\r\n\r\n" * (1 << 10)),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_endless_framing(wire: Wire, kind: str):
    """What surrounds a body, or precedes an answer, has a limit, so it fills no memory."""
    host = urlsplit(wire.url).netloc.encode()
    first, more = (part.replace(b"HOST", host) for part in FRAMES[kind])
    sent = 0
    with connect(wire) as connection:
        try:
            connection.sendall(first)
            while sent < MAX_FRAMING_BYTES:
                connection.sendall(more)
                sent += len(more)
        except (ConnectionError, TimeoutError):
            pass
    assert sent < MAX_FRAMING_BYTES


def test_honest_framing(wire: Wire):
    """Requests one behind the other, and a body in chunks of some size, are answered."""
    host = urlsplit(wire.url).netloc
    request = f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    body = f"POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
    with connect(wire) as connection:
        connection.sendall(request * 4 + body + b"20\r\n" + b"a" * 32 + b"\r\n")
        for _ in range(5000):
            connection.sendall(b"20\r\n" + b"a" * 32 + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        answers = bytearray()
        while piece := connection.recv(1 << 16):
            answers += piece
    assert answers.count(b"HTTP/1.1 200") == 4
    assert answers.count(b"HTTP/1.1 400") == 1
    assert b"head of a request" not in answers


AMBIGUOUS = {
    "length and chunks": b"Content-Length: 6\r\nTransfer-Encoding: chunked",
    "two lengths": b"Content-Length: 0\r\nContent-Length: 40",
    "two lengths in one": b"Content-Length: 0, 40",
    "negative length": b"Content-Length: -1",
    "signed length": b"Content-Length: +5",
    "hexadecimal length": b"Content-Length: 0x5",
    "huge length": b"Content-Length: 99999999999999999999999",
    "unknown coding": b"Transfer-Encoding: xchunked",
    "chunked is not last": b"Transfer-Encoding: chunked, identity",
    "vertical tab": b"Transfer-Encoding: chunked\x0b",
    "folded header": b"X: a\r\n Content-Length: 40\r\nTransfer-Encoding: chunked, x",
    "space before the colon": b"Content-Length : 40",
    "two hosts": b"Host: evil.example\r\nContent-Length: 0",
}


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_smuggled_requests(wire: Wire, kind: str):
    """What two programs could read differently is refused, with nothing behind it answered (smuggling)."""
    host = urlsplit(wire.url).netloc.encode()
    hidden = b"GET /healthz HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"
    with connect(wire) as connection:
        connection.sendall(
            b"POST / HTTP/1.1\r\nHost: " + host + b"\r\n" + AMBIGUOUS[kind] + b"\r\n\r\n0\r\n\r\n" + hidden
        )
        answers = bytearray()
        while piece := connection.recv(1 << 16):
            answers += piece
    assert answers.startswith(b"HTTP/1.1 400")
    assert b"HTTP/1.1 200" not in answers
