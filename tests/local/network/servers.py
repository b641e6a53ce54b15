"""HTTP and HTTPS servers on this machine, with an index of one package."""

from __future__ import annotations

import hashlib
import io
import ssl
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

import trustme

from tests import http_server
from tests.http_server import Handler, Server

WHEEL = "agentbay_trial-1.0-py3-none-any.whl"


class Echo(Handler):
    """Echoes requests, and serves a package index at `/simple/`."""

    def do_GET(self) -> None:
        if self.path.startswith("/simple/"):
            digest = hashlib.sha256(wheel()).hexdigest()
            self._send(
                f'<html><body><a href="/{WHEEL}#sha256={digest}">{WHEEL}</a></body></html>'.encode(), "text/html"
            )
        elif self.path == f"/{WHEEL}":
            self._send(wheel(), "application/zip")
        else:
            lines = [f"{name.lower()}: {value}" for name, value in self.headers.items()]
            self._send("\n".join([f"GET {self.path}", *lines, ""]).encode())

    def do_POST(self) -> None:
        if self.headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.body()
        self._send(f"{len(body)} bytes, {hashlib.sha256(body).hexdigest()}\n".encode())

    def _send(self, body: bytes, kind: str = "text/plain") -> None:
        self.answer(200, body, {"content-type": kind})


def wheel() -> bytes:
    """Return a package with one line of code."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        info = "agentbay_trial-1.0.dist-info"
        for name, text in (
            ("agentbay_trial.py", "here = True\n"),
            (f"{info}/METADATA", "Metadata-Version: 2.1\nName: agentbay-trial\nVersion: 1.0\n"),
            (f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
            (f"{info}/RECORD", ""),
        ):
            archive.writestr(zipfile.ZipInfo(name), text)
    return content.getvalue()


@contextmanager
def serving(authority: trustme.CA | None = None, address: str = "127.0.0.1") -> Iterator[int]:
    """Serve on a port of its own, over TLS if there is an authority."""
    server = Server(Echo, address)
    if authority is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    with http_server.serving(server):
        yield server.server_port
