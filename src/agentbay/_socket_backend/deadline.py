"""What the sockets of both flavours share."""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable
from typing import Any


class DeadlineNetwork:
    """Connects, and has every wait end at `deadline_at`.

    That is a moment on the monotonic clock.
    """

    deadline_at = math.inf
    extend: Callable[[], Any] | None = None  # returns a later deadline, if a wait may go on after all

    def __init__(self, path: str = "") -> None:
        """Connect to any host, or always to the unix socket `path` if given."""
        self.socket_path = path

    def remaining(self, timeout: float | None) -> float | None:
        """Return the seconds a wait may take, or None for no limit.

        They end at `timeout` or at the deadline, whichever is sooner.
        """
        left = min(math.inf if timeout is None else timeout, max(self.deadline_at - time.monotonic(), 0.0))
        return None if left > _LONGEST_WAIT_SECONDS else left


_LONGEST_WAIT_SECONDS = 1e9  # sockets accept no infinite timeout
CONNECT_ERRORS = (OSError, ValueError)  # ValueError for a name that no host can have
NOT_SENT_MESSAGE = "The connection was closed before the request was sent."


def is_readable(sock: Any) -> bool:
    """Return whether the kernel has data that the event loop has not seen.

    A busy loop sees it late.
    """
    if sock is None or sock.fileno() < 0:
        return True
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([sock.fileno()], [], [], 0)[0])
    # Elsewhere select.select fails for descriptors from 1024 on (FD_SETSIZE).
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
