"""A scripted WebSocket server over real sockets, in its own thread."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve
from websockets.utils import accept_key


class Peer:
    """A client of the server, and the connection to it."""

    def __init__(self, connection: ServerConnection, number: int) -> None:
        self.connection, self.number = connection, number
        assert connection.request is not None
        self.headers = dict(connection.request.headers.raw_items())

    def receive(self, timeout: float = 60.0) -> dict[str, Any]:
        """Return the next frame."""
        frame: dict[str, Any] = json.loads(self.connection.recv(timeout))
        return frame

    def send(self, frame: Mapping[str, Any] | str | bytes) -> None:
        """Send a frame, or a text that is none."""
        self.connection.send(frame if isinstance(frame, (str, bytes)) else json.dumps(frame))

    def reply(self, asked: Mapping[str, Any], **data: Any) -> None:
        """Answer a frame."""
        self.send({"invocationId": asked["invocationId"], "source": asked["target"], "target": "SDK", "data": data})

    def push(self, source: str, **data: Any) -> None:
        """Send a push."""
        self.send({"invocationId": f"push-{id(data)}", "source": source, "target": "SDK", "data": data})

    def drop(self) -> None:
        """Break the connection with a TCP reset."""
        raw = self.connection.socket
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.shutdown(socket.SHUT_RDWR)


Script = Callable[[Peer], None]


class WsServer:
    """Runs a script for each connection, as a context manager.

    Args:
        script: What to do with a connection; it is closed when the script returns.
        refuse: HTTP status to refuse a connection with, by its number from 1; None accepts.
        headers: Headers of such a refusal.
        tls: To speak TLS.
    """

    def __init__(
        self,
        script: Script,
        refuse: Callable[[int], int | None] = lambda _: None,
        headers: Mapping[str, str] = {},
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.opened = 0
        self.heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.failures: list[BaseException] = []
        self._scheme = "ws" if tls is None else "wss"
        self._script, self._refuse, self._headers = script, refuse, headers
        self._server: Server = serve(
            self._run, "127.0.0.1", 0, process_request=self._admit, max_size=80 << 20, ping_interval=None, ssl=tls
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """The URL of the server, which holds a secret."""
        return f"{self._scheme}://127.0.0.1:{self._server.socket.getsockname()[1]}/ws/secret-path"

    def __enter__(self) -> WsServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(5)
        if kind is None and self.failures:
            raise self.failures[0]

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        self.opened += 1
        status = self._refuse(self.opened)
        if status is None:
            return None
        response = connection.respond(status, "no")  # type: ignore[arg-type]
        for name, value in self._headers.items():
            response.headers[name] = value
        return response

    def _run(self, connection: ServerConnection) -> None:
        try:
            self._script(Peer(connection, self.opened))
        except (ConnectionClosed, TimeoutError, OSError):
            pass
        except BaseException as error:  # noqa: BLE001 - raised in the test, at the end
            self.failures.append(error)


class MuteServer:
    """Accepts a connection and then sends nothing, not even a pong."""

    def __init__(self, *, handshake: bool = True) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._handshake = handshake
        self._accepted: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"ws://127.0.0.1:{self._listener.getsockname()[1]}/ws/secret-path"

    def __enter__(self) -> MuteServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for accepted in self._accepted:
            accepted.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._listener.accept()
                self._accepted.append(accepted)
                if self._handshake:
                    self._greet(accepted)

    @staticmethod
    def _greet(accepted: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += accepted.recv(4096)
        lines = head.decode("latin-1").split("\r\n")
        key = next(line.split(": ")[1] for line in lines if line.lower().startswith("sec-websocket-key:"))
        accepted.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_key(key).encode() + b"\r\n\r\n"
        )
