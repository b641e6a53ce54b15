"""The service's end of a socket to a zygote or to process 1."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from agentbay.local.sandbox.shared import ipc
from agentbay.local.sandbox.shared.ipc import Message

MessageHandler = Callable[[Message, list[int]], None]


class Channel:
    """Sends without blocking, and passes on what arrives.

    Args:
        on_message: Gets each message with its descriptors, which it owns.
        on_close: Called once when the other side is gone.
    """

    def __init__(self, sock: socket.socket, on_message: MessageHandler, on_close: Callable[[], None]) -> None:
        sock.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._on_message, self._on_close = on_message, on_close
        self._outgoing: deque[tuple[bytes, list[int]]] = deque()
        self._closed = False
        self._loop.add_reader(sock, self._receive)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send a message.

        Its descriptors are closed here after they are sent.
        """
        if self._closed:
            _close_all(fds)
            return
        data, attachment = ipc.pack(message)
        self._outgoing.append((data, [*([] if attachment is None else [attachment]), *fds]))
        if len(self._outgoing) == 1:
            self._flush()

    def close(self) -> None:
        """Close without a call to `on_close`."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for _, fds in self._outgoing:
            _close_all(fds)
        self._outgoing.clear()

    def _flush(self) -> None:
        while self._outgoing:
            data, fds = self._outgoing[0]
            try:
                ipc.send_datagram(self._socket, data, fds)
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._flush)
                return
            except ConnectionError:  # the reader sees the end too, and reports it
                pass
            self._outgoing.popleft()
            _close_all(fds)
        self._loop.remove_writer(self._socket)

    def _receive(self) -> None:
        while not self._closed:
            try:
                message, fds = ipc.receive(self._socket)
            except BlockingIOError:
                return
            if message is None:
                self.close()
                self._on_close()
                return
            self._on_message(message, fds)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
