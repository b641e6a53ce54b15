"""The connection to the process that drives a session's desktop.

Nothing that the process says is trusted, since code of the session can take its place: a reply is bounded, and passed
unchanged to the client of the same session only.
"""

from __future__ import annotations

import asyncio
import json
import marshal
import os
import re
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from agentbay.local.sandbox.service.futures import retrieve_exception
from agentbay.local.sandbox.service.manager import Sandbox

_MAX_REPLY_BYTES, _MAX_TEXT_BYTES = 16 << 20, 1 << 20  # a screenshot has 4 MiB at most
_CHUNK_BYTES = 1 << 20
_NUMBER = re.compile(rb"[0-9]{1,10}")
_INSIDE = Path(__file__).with_name("inside")
_PACKAGE = "agentbay.local.desktop.inside"
# The modules come over the socket: the files of this package are not visible in every sandbox. They are imported when
# they are needed, so that the X server starts before the libraries are loaded.
LOADER = f"""
import json, marshal, os, sys
from importlib.machinery import ModuleSpec
def read(size):
    data = b""
    while len(data) < size: data += os.read(0, size - len(data)) or os._exit(1)
    return data
codes = json.loads(read(int.from_bytes(read(4), "little")))
class Codes:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return ModuleSpec(name, Codes, is_package=not codes[name]) if name in codes else None
    @staticmethod
    def create_module(spec): return None
    @staticmethod
    def exec_module(module):
        code = codes[module.__name__]
        if code: exec(marshal.loads(bytes.fromhex(code)), module.__dict__)
sys.meta_path.insert(0, Codes)
from {_PACKAGE}.program import main
main()
"""


class DesktopFailed(Exception):
    """The desktop could not be started, or has ended, for this reason."""

    def __init__(self, message: str, code: str = "DesktopFailed.Local") -> None:
        super().__init__(message)
        self.code = code


class Reply(NamedTuple):
    """What the process answered.

    Attributes:
        refused: Whether the process refused the request; then the body is the reason.
        body: A text in UTF-8, or an image behind its width and height.
    """

    refused: bool
    body: bytes

    @property
    def text(self) -> str:
        """The body as text, or its beginning."""
        return self.body[:_MAX_TEXT_BYTES].decode("utf-8", "replace")

    @property
    def number(self) -> int:
        """The body as a number, or 0 if it is no number."""
        return int(self.body) if _NUMBER.fullmatch(self.body) else 0


class DesktopConnection:
    """Sends requests and receives their replies."""

    def __init__(self, ours: socket.socket) -> None:
        self._socket = ours
        ours.setblocking(False)
        self._loop = asyncio.get_running_loop()

    async def send(self, message: Mapping[str, object]) -> None:
        """Send a request."""
        body = json.dumps(message).encode()
        await self._loop.sock_sendall(self._socket, len(body).to_bytes(4, "little") + body)

    async def receive(self) -> Reply:
        """Receive a reply.

        Raises:
            EOFError: The process has ended, or what it sends is no reply.
        """
        head = await self._read(5)
        size = int.from_bytes(head[:4], "little")
        if size > _MAX_REPLY_BYTES:
            raise EOFError
        return Reply(head[4] != 0, await self._read(size))

    def close(self) -> None:
        """Close the connection, at which the process ends."""
        self._socket.close()

    async def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            chunk = await self._loop.sock_recv(self._socket, min(size - len(data), _CHUNK_BYTES))
            if not chunk:
                raise EOFError
            data += chunk
        return bytes(data)


def open_connection(sandbox: Sandbox, argv: list[str], env: Mapping[str, str]) -> DesktopConnection:
    """Start the process, send it its modules, and return the connection."""
    ours, theirs = socket.socketpair()
    fds = [theirs.detach(), os.open(os.devnull, os.O_WRONLY), os.open(os.devnull, os.O_WRONLY)]
    sandbox.start_command(argv, fds, env=env).add_done_callback(retrieve_exception)
    return DesktopConnection(ours)


@cache
def module_codes() -> dict[str, str]:
    """Return the compiled modules by name, in hexadecimal digits.

    A package has no code. Compiled by the same Python that will run them, they need no compilation at each start.
    """
    parts = _PACKAGE.split(".")
    packages = {".".join(parts[:count]): "" for count in range(1, len(parts) + 1)}
    modules = {
        f"{_PACKAGE}.{file.stem}": marshal.dumps(compile(file.read_bytes(), file.name, "exec")).hex()
        for file in _INSIDE.glob("*.py")
    }
    return {**modules, **packages}
