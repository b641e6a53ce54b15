"""The process that drives a desktop.

It starts the X server and the window manager, and then does what the service asks for.

A request is a length (4 bytes, little endian) and a JSON object in UTF-8 of that many bytes. A reply is the length of
its body (4 bytes), one byte (0: done, 1: refused), and the body: UTF-8 text or an image. Requests are done one after
the other.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from typing import Any

from agentbay.local.desktop.inside import display as display_server
from agentbay.local.desktop.inside.refusal import Refused

_MAX_MANAGER_STARTS = 100  # a window manager that cannot run must not be started for ever


def main() -> None:
    """Run until the service closes the connection, or the X server ends."""
    channel = _Channel()
    server_program, manager_program, width, height = sys.argv[1:]
    try:
        display_server.write_cookie()
        os.environ["XAUTHORITY"] = str(display_server.AUTHORITY)
        server, reader = display_server.start_server(server_program, int(width), int(height))
        # Imported while the X server starts, which takes about as long.
        from agentbay.local.desktop.inside.requests import Requests

        number = display_server.read_display_number(server, reader)
        os.environ["DISPLAY"] = f":{number}"
        display = display_server.connect(number)
        desktop = _Desktop(display, Requests(display), manager_program)
        desktop.start_manager()
        desktop.requests.windows.wait_for_manager()
    except (Refused, OSError, ImportError) as failure:
        channel.reply(str(failure), refused=True)
        return
    channel.reply(f"{os.getpid()} {number}")
    try:
        desktop.serve(channel)
    finally:
        server.kill()


class _Channel:
    """The connection to the service, which is this program's standard input."""

    def __init__(self) -> None:
        self.socket = socket.socket(fileno=os.dup(0))
        # What is started from here must not read the service's requests.
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)

    def receive(self) -> dict[str, Any] | None:
        """Return the next request, or None at the end."""
        head = self._read(4)
        body = self._read(int.from_bytes(head, "little")) if head else b""
        return json.loads(body) if body else None

    def reply(self, content: str | bytes, *, refused: bool = False) -> None:
        """Send a reply."""
        body = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
        self.socket.sendall(len(body).to_bytes(4, "little") + bytes([refused]) + body)

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            chunk = self.socket.recv(size - len(data))
            if not chunk:
                return b""
            data += chunk
        return bytes(data)


class _Desktop:
    """Waits for requests, events of the display and ends of processes."""

    def __init__(self, display: Any, requests: Any, manager_program: str) -> None:
        self._display, self.requests, self._manager_program = display, requests, manager_program
        self._manager: subprocess.Popen[bytes] | None = None
        self._manager_starts = 0

    def start_manager(self) -> None:
        """Start the window manager, or restart it if it has exited."""
        ended = self._manager is None or self._manager.poll() is not None
        if ended and self._manager_starts < _MAX_MANAGER_STARTS:
            self._manager_starts += 1
            self._manager = display_server.start_window_manager(self._manager_program)

    def serve(self, channel: _Channel) -> None:
        """Serve until the connection to the service or to the X server ends."""
        from Xlib.error import ConnectionClosedError

        ended, wakeup = socket.socketpair()
        wakeup.setblocking(False)
        ended.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(channel.socket, selectors.EVENT_READ, lambda: self._do_request(channel))
                selector.register(self._display.fileno(), selectors.EVENT_READ, self._do_events)
                selector.register(ended, selectors.EVENT_READ, lambda: self._do_ended(ended))
                while all([key.data() for key, _ in selector.select()]):  # noqa: C419 # so that every handler is called
                    # Events that came along with awaited replies are in memory, where the selector does not look.
                    self._do_events()
        except ConnectionClosedError:
            # The X server has ended, and the desktop with it.
            return

    def _do_request(self, channel: _Channel) -> bool:
        request = channel.receive()
        if request is None:
            return False
        try:
            channel.reply(self.requests.do(request))
        except Refused as refusal:
            channel.reply(str(refusal), refused=True)
        return True

    def _do_events(self) -> bool:
        while self._display.pending_events():
            self.requests.windows.on_event(self._display.next_event())
        return True

    def _do_ended(self, ended: socket.socket) -> bool:
        ended.recv(4096)
        self.requests.applications.reap()
        self.start_manager()
        return True
