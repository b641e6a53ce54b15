"""The egress proxy of one sandbox.

It runs in the service, but accepts on a socket in the sandbox's network namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections import deque

from agentbay.local.fair_share import SessionTurns
from agentbay.local.lazy_imports import import_in_thread
from agentbay.local.network.dialer import EgressDialer
from agentbay.local.network.egress_policy import HostPort

_MAX_CONNECTIONS = 128  # of one sandbox at a time; more wait to be accepted
_MAX_REFUSALS = 64  # that are remembered, the newest
_ACCEPT_RETRY_SECONDS = 0.5  # when descriptors have run out
_RESOURCE_EXHAUSTED_ERRNOS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class EgressProxy:
    """The proxy of one sandbox, which closes its listener at the end."""

    def __init__(self, listener: socket.socket, dialer: EgressDialer) -> None:
        self._listener, self._dialer = listener, dialer
        self._loop = asyncio.get_running_loop()
        self._turns = SessionTurns()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._refusals: deque[tuple[float, str]] = deque(maxlen=_MAX_REFUSALS)
        listener.setblocking(False)
        self._loop.add_reader(listener, self._accept)

    def refused_since(self, since: float) -> list[str]:
        """Return the hosts that were refused since a time on the monotonic clock."""
        return list(dict.fromkeys(host for at, host in self._refusals if at >= since))

    def _note_refusal(self, host: HostPort) -> None:
        self._refusals.append((time.monotonic(), str(host)))

    def close(self) -> None:
        """Accept no more connections, and break off those under way."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for task in self._tasks:
            task.cancel()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno in _RESOURCE_EXHAUSTED_ERRNOS:
                self._loop.remove_reader(self._listener)
                # The listener stays readable, so without a pause the loop would spin on a failing accept.
                self._loop.call_later(_ACCEPT_RETRY_SECONDS, self._resume_accepting)
            return
        task = self._loop.create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        # Back pressure: further connections wait in the kernel's backlog.
        if len(self._tasks) >= _MAX_CONNECTIONS:
            self._loop.remove_reader(self._listener)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._resume_accepting()

    def _resume_accepting(self) -> None:
        if not self._closed and len(self._tasks) < _MAX_CONNECTIONS:
            self._loop.add_reader(self._listener, self._accept)

    async def _serve(self, connection: socket.socket) -> None:
        with contextlib.ExitStack() as undo:
            undo.callback(connection.close)
            # with the first connection: its libraries take a tenth of the time that the runtime needs to start
            requests = await import_in_thread("network.proxy_request")
            undo.pop_all()
        await requests.serve(connection, self._dialer, self._note_refusal, self._turns)
