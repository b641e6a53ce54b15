"""How long an operation may still take."""

from __future__ import annotations

import time
from typing import NamedTuple

from ..errors import DeadlineExceeded

_DAY_SECONDS = 86400.0


class Deadline:
    """A moment on the monotonic clock, made at the door of an operation and passed down.

    Args:
        seconds: How long the operation may take from now, pauses and retries included.
    """

    __slots__ = ("at", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.at = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left; negative when past."""
        return self.at - time.monotonic()

    def capped(self, seconds: float) -> Deadline:
        """Make a deadline for one step: in so many seconds, but not after this one."""
        return Deadline(max(0.0, min(seconds, self.remaining())))

    def remaining_or_raise(self, doing: str) -> float:
        """Return the seconds left.

        Raises:
            DeadlineExceeded: If there are none; says what was being done.
        """
        left = self.remaining()
        if left <= 0:
            raise self.exceeded_error(doing)
        return left

    def exceeded_error(self, doing: str) -> DeadlineExceeded:
        """Make the error that says that time ran out."""
        return DeadlineExceeded(f"{doing} did not finish within {self.seconds:g} s.")


def to_timeout_ms(seconds: float) -> int:
    """Whole milliseconds, as they travel: at least one second, and a day where there is no limit."""
    return int(min(max(seconds, 1.0), _DAY_SECONDS) * 1000)


class Timeouts(NamedTuple):
    """How long to wait for a connection and for each part of an answer, in seconds; None: until the deadline."""

    connect: float | None = None
    read: float | None = None

    def total_seconds(self, default: float) -> float:
        """Seconds that a whole call may take: both waits together, or `default` where the answer's is not given."""
        return default if self.read is None else self.read + (self.connect or 0.0)


NO_TIMEOUTS = Timeouts()
