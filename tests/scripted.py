"""A scripted HTTP service over real sockets, for both flavours.

Its behaviours are the faults that networks and services have.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit


class Request(NamedTuple):
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int
    fields: dict[str, str]
    action: str
    tool: str

    @classmethod
    def read(cls, head: bytes, body: bytes, connection: int) -> Request:
        line, *rest = head.decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (item.partition(":") for item in rest)}
        fields = dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
        if headers.get("content-type") == "application/json":
            fields |= {name: value for name, value in json.loads(body).items() if isinstance(value, str)}
            return cls(method, target, headers, body, connection, fields, "callTool", fields.get("tool", ""))
        fields |= parse_qsl(body.decode(), keep_blank_values=True)
        return cls(method, target, headers, body, connection, fields, fields.get("Action", ""), fields.get("Name", ""))


class Hangup(Exception):
    """Raised when a connection is to be closed, or was closed by the client."""


class Peer:
    """One accepted connection, as scripted behaviours use it."""

    def __init__(self, service: Service, sock: socket.socket, number: int) -> None:
        self.service, self.sock, self.number = service, sock, number
        self._pending = b""

    def send(self, data: bytes) -> None:
        """Send all bytes."""
        try:
            self.sock.settimeout(60)
            self.sock.sendall(data)
        except OSError as error:
            raise Hangup from error

    def receive(self) -> bytes:
        """Receive some bytes, for as long as the service runs."""
        self.sock.settimeout(0.05)
        while not self.service.stopped.is_set():
            try:
                data = self.sock.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError as error:
                raise Hangup from error
            if not data:
                raise Hangup
            return data
        raise Hangup

    def read_request(self) -> Request:
        """Read one request with its body."""
        while b"\r\n\r\n" not in self._pending:
            self._pending += self.receive()
        head, _, rest = self._pending.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.decode("latin-1").lower().split("\r\n") if line[:15] == "content-length:"),
            0,
        )
        while len(rest) < length:
            rest += self.receive()
        self._pending = rest[length:]
        return Request.read(head, rest[:length], self.number)

    def secure(self, context: ssl.SSLContext) -> None:
        """Start TLS on the connection."""
        self.sock.settimeout(60)
        try:
            self.sock = context.wrap_socket(self.sock, server_side=True)
        except OSError as error:
            raise Hangup from error

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        raise Hangup


Behaviour = Callable[[Peer, Request], None]
Script = Behaviour | list[Behaviour] | Mapping[str, "Behaviour | list[Behaviour]"]


def message(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """Return an HTTP response."""
    lines = {"Content-Length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Scripted\r\n{head}\r\n".encode() + body


def http(status: int, body: bytes | object, headers: Mapping[str, str] | None = None) -> Behaviour:
    """Answer with a response, whose body is bytes or becomes JSON."""
    whole = message(status, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)
    return lambda peer, _: peer.send(whole)


def ok(data: object = None, **more: object) -> Behaviour:
    """Answer with success."""
    body = {"RequestId": "R-OK", "Success": True, "Code": "ok", "HttpStatusCode": 200, **more}
    return http(200, body if data is None else {**body, "Data": data})


def refused(code: str = "SomeCode", status: int = 400, headers: Mapping[str, str] | None = None) -> Behaviour:
    """Answer with a refusal of the service."""
    return http(status, {"RequestId": "R-NO", "Code": code, "Message": "it says no"}, headers)


NOT_FOUND = refused("InvalidMcpSession.NotFound")


def tool_says(text: str, *, is_error: bool = False) -> Behaviour:
    """Answer as a tool does, by either route."""
    result = {"content": [{"type": "text", "text": text}], "isError": is_error}

    def behave(peer: Peer, request: Request) -> None:
        answer = http(200, {"data": {"result": result}}) if request.action == "callTool" else ok(result)
        answer(peer, request)

    return behave


def zipped(body: object) -> Behaviour:
    """Answer with a gzip-encoded body."""
    return http(200, gzip.compress(json.dumps(body).encode()), {"Content-Encoding": "gzip"})


def silence(peer: Peer, _: Request) -> None:
    """Never answer."""
    peer.receive()


def hang_up(peer: Peer, _: Request) -> None:
    """Close without an answer."""
    raise Hangup


def reset(peer: Peer, _: Request) -> None:
    """Reset the connection without an answer."""
    peer.reset()


def cut(data: bytes) -> Behaviour:
    """Send so many bytes and close."""

    def behave(peer: Peer, _: Request) -> None:
        peer.send(data)
        raise Hangup

    return behave


def raw(data: bytes) -> Behaviour:
    """Send exactly these bytes, and keep the connection."""
    return lambda peer, _: peer.send(data)


def then_close(behaviour: Behaviour) -> Behaviour:
    """Answer, and close the connection at once."""

    def behave(peer: Peer, request: Request) -> None:
        behaviour(peer, request)
        raise Hangup

    return behave


def late(seconds: float, behaviour: Behaviour) -> Behaviour:
    """Answer after a delay in seconds."""

    def behave(peer: Peer, request: Request) -> None:
        peer.service.stopped.wait(seconds)
        behaviour(peer, request)

    return behave


def when(event: threading.Event, behaviour: Behaviour) -> Behaviour:
    """Answer when the event is set."""

    def behave(peer: Peer, request: Request) -> None:
        while not event.wait(0.02) and not peer.service.stopped.is_set():
            pass
        behaviour(peer, request)

    return behave


def endless(start: bytes, piece: bytes, pause: float) -> Behaviour:
    """Send a start, and then the same piece forever."""

    def behave(peer: Peer, _: Request) -> None:
        peer.send(start)
        while not peer.service.stopped.is_set():
            peer.send(piece)
            time.sleep(pause)

    return behave


def _wake(sock: socket.socket) -> None:
    """Wake a thread that waits at a socket."""
    with contextlib.suppress(OSError):  # it may just have closed by itself
        sock.shutdown(socket.SHUT_RDWR)


class Service:
    """A TCP server that plays a script.

    `with Service(script) as service` runs it.

    Args:
        script: What to do with each request: one behaviour; a list, played in turn, its last one for ever; or a table
            of these by action, or by tool name for tool calls.
        tls: Speak TLS.
        proxy: Speak TLS only after a CONNECT request, as if the proxy were the host it is asked for.
        host: Address to listen on.
        accepting: What to do with each accepted connection before anything is read from it.
    """

    def __init__(
        self,
        script: Script,
        *,
        tls: ssl.SSLContext | None = None,
        proxy: bool = False,
        host: str = "127.0.0.1",
        accepting: Callable[[Peer], None] | None = None,
    ) -> None:
        self._script, self._tls, self._proxy, self._accepting = script, tls, proxy, accepting
        self._lock = threading.Lock()
        self._turns: dict[int, int] = {}
        self._threads: list[threading.Thread] = []
        self._open: dict[int, Peer] = {}
        self.requests: list[Request] = []
        self.connections = 0
        self.stopped = threading.Event()
        self._listener = socket.create_server((host, 0), backlog=256)
        self._listener.settimeout(0.05)
        scheme = "https" if tls and not proxy else "http"
        self.url = f"{scheme}://{host}:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Service:
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for sock in (self._listener, *(peer.sock for peer in list(self._open.values()))):
            _wake(sock)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def count(self, action: str = "") -> int:
        """Return how many requests arrived, for one action or all."""
        return len([request for request in self.requests if not action or request.action == action])

    @property
    def open_now(self) -> int:
        """Return the number of open connections."""
        return len(self._open)

    def close_all(self) -> None:
        """Close every open connection and wait until it is closed."""
        for peer in list(self._open.values()):
            _wake(peer.sock)
        eventually(lambda: not self._open)

    def _run(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                sock, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:  # as it is woken for the end
                break
            self.connections += 1
            self._run(self._serve, Peer(self, sock, self.connections))

    def _serve(self, peer: Peer) -> None:
        self._open[peer.number] = peer
        try:
            if self._accepting is not None:
                self._accepting(peer)
            if self._tls is not None and not self._proxy:
                peer.secure(self._tls)
            while True:
                request = peer.read_request()
                with self._lock:
                    self.requests.append(request)
                    behave = self._next(request)
                behave(peer, request)
        except Hangup:
            pass
        finally:
            peer.sock.close()
            del self._open[peer.number]

    def _next(self, request: Request) -> Behaviour:
        if self._proxy and request.method == "CONNECT":
            return self._tunnel
        script: Any = self._script
        if isinstance(script, Mapping):
            script = script.get(request.tool) or script[request.action]
        if callable(script):
            return script
        turn = self._turns.get(id(script), 0)
        self._turns[id(script)] = turn + 1
        return script[min(turn, len(script) - 1)]

    def _tunnel(self, peer: Peer, _: Request) -> None:
        assert self._tls is not None
        peer.send(b"HTTP/1.1 200 Connected\r\n\r\n")
        peer.secure(self._tls)


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """Yield an address that refuses every connection, and stays reserved."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def quiet_port() -> int:
    """Return a free port that no other program is given.

    It can be closed and taken again.
    """
    while True:
        port = random.randrange(10_000, 30_000)  # below those that the kernel gives
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def eventually(true: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until a condition is true, or fail."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.005)


def actions(requests: Iterable[Request]) -> list[str]:
    """Return the actions of requests, in order of arrival."""
    return [request.action for request in requests]
