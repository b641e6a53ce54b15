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
