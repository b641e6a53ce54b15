"""The service's end of a socket to a zygote or to process 1."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from agentbay.local.sandbox.shared import ipc
from agentbay.local.sandbox.shared.ipc import Message

MessageHandler = Callable[[Message, list[int]], None]
SendErrorHandler = Callable[[Message, OSError], None]

_logger = logging.getLogger(__name__)


class Channel:
    """Sends without blocking, and passes on what arrives.

    Args:
        on_message: Gets each message with its descriptors, which it owns. If it raises ValueError, TypeError or a
            LookupError, the message was malformed: its descriptors and the channel are closed.
        on_close: Called once when the other side is gone, or has sent something malformed.
        on_send_error: Gets each message that could not be sent; those after it are sent all the same.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: MessageHandler,
        on_close: Callable[[], None],
        on_send_error: SendErrorHandler,
    ) -> None:
        sock.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._on_message, self._on_close, self._on_send_error = on_message, on_close, on_send_error
        self._outgoing: deque[tuple[Message, bytes, list[int]]] = deque()
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
        self._outgoing.append((message, data, [*([] if attachment is None else [attachment]), *fds]))
        # Behind earlier messages it waits its turn: the loop calls `_flush` when the socket takes them.
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
        for _, _, fds in self._outgoing:
            _close_all(fds)
        self._outgoing.clear()

    def _flush(self) -> None:
        while self._outgoing:
            message, data, fds = self._outgoing[0]
            failure: OSError | None = None
            try:
                ipc.send_datagram(self._socket, data, fds)
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._flush)
                return
            except ConnectionError:  # the reader sees the end too, and reports it
                pass
            except OSError as error:  # such as ETOOMANYREFS: this user has too many descriptors in flight
                failure = error
            self._outgoing.popleft()
            _close_all(fds)
            if failure:
                self._on_send_error(message, failure)
        self._loop.remove_writer(self._socket)

    def _receive(self) -> None:
        # A handler may close this channel, and messages after that are for nobody.
        while not self._closed:
            message, fds = None, list[int]()
            try:
                message, fds = ipc.receive(self._socket)
                if message is not None:
                    self._on_message(message, fds)
                    continue
            except BlockingIOError:
                return
            except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
                _close_all(fds)
                _logger.warning("a malformed message, after which the channel is closed: %r", error)
            self.close()
            self._on_close()


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
