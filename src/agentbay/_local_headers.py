"""A blocking server on the loopback that records a browser's HTTP headers."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


class HeaderServer:
    """Serve one empty page, and keep the headers with which it was asked for."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        # In the handler `self.headers` are the headers of its request.
        seen = self.headers

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                # Browsers ask for /favicon.ico too, with other headers.
                if self.path == "/":
                    seen.update({name.lower(): value for name, value in self.headers.items()})
                self.send_response(200)
                self.send_header("content-type", "text/html")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Write no log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> HeaderServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
