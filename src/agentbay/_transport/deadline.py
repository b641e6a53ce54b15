"""Deadlines and timeouts of operations."""

from __future__ import annotations

import time
from typing import NamedTuple

from ..errors import DeadlineExceeded

_DAY_SECONDS = 86400.0


class Deadline:
    """A moment on the monotonic clock by which an operation must end.

    It is made once, where the operation begins, and passed down to every step.

    Args:
        seconds: Time for the whole operation, with pauses and retries.
    """

    __slots__ = ("at", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.at = time.monotonic() + seconds

    def postpone(self, seconds: float) -> None:
        """Move it later, for a wait that has its own time limit."""
        self.at += seconds

    def remaining(self) -> float:
        """Return the seconds left, negative after the deadline."""
        return self.at - time.monotonic()

    def capped(self, seconds: float) -> Deadline:
        """Return a deadline for one step, which is never later than this one."""
        return Deadline(max(0.0, min(seconds, self.remaining())))

    def remaining_or_raise(self, doing: str) -> float:
        """Return the seconds left.

        Raises:
            DeadlineExceeded: If none are left; the message says that `doing` did not finish.
        """
        left = self.remaining()
        if left <= 0:
            raise self.exceeded_error(doing)
        return left

    def exceeded_error(self, doing: str) -> DeadlineExceeded:
        """Return the error that says that time ran out."""
        return DeadlineExceeded(f"{doing} did not finish within {self.seconds:g} s.")


def to_timeout_ms(seconds: float) -> int:
    """Return whole milliseconds for the wire: at least a second, at most a day."""
    return int(min(max(seconds, 1.0), _DAY_SECONDS) * 1000)


class Timeouts(NamedTuple):
    """Seconds to wait for a connection, and for each part of an answer.

    None waits until the deadline.
    """

    connect: float | None = None
    read: float | None = None

    def total_seconds(self, default: float) -> float:
        """Return the seconds that a whole call may take.

        Both waits together, or `default` if there is no limit for the answer.
        """
        return default if self.read is None else self.read + (self.connect or 0.0)


NO_TIMEOUTS = Timeouts()
