"""The web server that shows the desktop live in a page."""

from __future__ import annotations

import asyncio
import mimetypes
import os
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from agentbay.local.desktop.inside.display import VNC_SOCKET

_CHUNK_BYTES = 1 << 16
_MAX_MESSAGE_BYTES = 1 << 20  # from the page, which sends keys, clicks and clipboard texts
_SOCKET_NAME = "socket"  # where the page opens its WebSocket


class LiveView:
    """Runs the web server in a process of its own.

    Args:
        prefix: The path of its pages. It is a secret, since other sessions reach the port with the host's network.
        files: The contents of the pages, by path.
    """

    def __init__(self, prefix: str, files: Mapping[str, str]) -> None:
        self._prefix, self._files = prefix, files
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
            self._pid = os.fork()  # it has all that it needs in memory
            if not self._pid:
                self._run(listener)

    def is_running(self) -> bool:
        """Return whether the process lives, and reap it if it does not."""
        if self._pid and os.waitpid(self._pid, os.WNOHANG) != (0, 0):
            self._pid = 0
        return self._pid != 0

    def _run(self, listener: socket.socket) -> None:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # With copies of them here, the service and the X server would not see the other process end.
            for fd in map(int, os.listdir("/proc/self/fd")):
                if fd > 2 and fd != listener.fileno():
                    # The descriptor of the listing itself is closed already.
                    with suppress(OSError):
                        os.close(fd)
            asyncio.run(self._serve(listener))
        finally:
            os._exit(1)

    async def _serve(self, listener: socket.socket) -> None:
        from websockets.asyncio.server import serve

        async with serve(
            _connect_to_vnc,
            sock=listener,
            process_request=self._answer,
            max_size=_MAX_MESSAGE_BYTES,
            compression=None,  # VNC compresses itself
        ) as server:
            await server.serve_forever()

    def _answer(self, connection: Any, request: Any) -> Any:
        """Return a file, or None for the WebSocket."""
        path = request.path.partition("?")[0]
        name = path.removeprefix(self._prefix)
        if name == path:
            return connection.respond(HTTPStatus.NOT_FOUND, "not found\n")
        if name == _SOCKET_NAME:
            return None
        name = name or "page.html"
        if name not in self._files:
            return connection.respond(HTTPStatus.NOT_FOUND, "not found\n")
        response = connection.respond(HTTPStatus.OK, self._files[name])
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = f"{mimetypes.guess_type(name)[0]}; charset=utf-8"
        response.headers["Cache-Control"] = "no-store"
        return response


async def _connect_to_vnc(websocket: Any) -> None:
    """Copy bytes between a page and the X server until one of them ends."""
    from websockets.exceptions import ConnectionClosed

    reader, writer = await asyncio.open_unix_connection(str(VNC_SOCKET))

    async def copy_to_page() -> None:
        while chunk := await reader.read(_CHUNK_BYTES):
            await websocket.send(chunk)

    sending = asyncio.ensure_future(copy_to_page())
    sending.add_done_callback(lambda _: asyncio.ensure_future(websocket.close()))
    try:
        async for message in websocket:
            writer.write(message)
            await writer.drain()
    except (ConnectionClosed, OSError):
        # Either end may go away at any time: the page is closed, or the desktop ends.
        pass
    finally:
        sending.cancel()
        writer.close()
