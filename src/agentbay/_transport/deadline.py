"""Deadlines and timeouts of operations."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import Context, ContextVar, copy_context
from typing import NamedTuple

from ..errors import DeadlineExceeded

_DAY_SECONDS = 86400.0


class Deadline:
    """A moment on the monotonic clock by which an operation must end.

    It is made once, where the operation begins, and passed down to every step.

    Args:
        seconds: Time for the whole operation, with pauses and retries.
        within: A deadline that this one never exceeds; None is the current `time_limit`, if there is one.
    """

    __slots__ = ("_moment", "_seconds", "_within")

    def __init__(self, seconds: float, within: Deadline | None = None) -> None:
        self._seconds, self._moment = seconds, time.monotonic() + seconds
        self._within = _limit.get() if within is None else within

    @property
    def at(self) -> float:
        """The moment."""
        return self._moment if self._within is None else min(self._moment, self._within.at)

    @property
    def seconds(self) -> float:
        """The whole time in seconds, of whichever deadline ends first."""
        if self._within is not None and self._within.at < self._moment:
            return self._within.seconds
        return self._seconds

    def move(self, moment: float) -> None:
        """Move it to another moment, never past the deadline around it."""
        self._moment = moment

    def postpone(self, seconds: float) -> None:
        """Add seconds to it and to every deadline around it."""
        self._moment += seconds
        if self._within is not None:
            self._within.postpone(seconds)

    def remaining(self) -> float:
        """Return the seconds left, negative after the deadline."""
        return self.at - time.monotonic()

    def capped(self, seconds: float, *, at_least: float = 0.0) -> Deadline:
        """Return a deadline for one step, which is not later than this one.

        Args:
            seconds: Time for the step.
            at_least: Seconds that it has in any case, such as a last poll when the time is over.
        """
        if self.remaining() < at_least:
            return Deadline(at_least)
        return Deadline(max(0.0, seconds), within=self)

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


# The deadline of the public call that runs, if its caller gave `timeout=`. A context variable propagates it to every
# step, as gRPC propagates deadlines, so that none can forget it.
_limit: ContextVar[Deadline | None] = ContextVar("agentbay_time_limit", default=None)


def time_limit(seconds: float | None) -> AbstractContextManager[None]:
    """Limit all that a `with` block does, as `timeout=` of a public method says.

    None changes nothing.
    """
    return nullcontext() if seconds is None else _limited(Deadline(seconds))


def without_time_limit() -> AbstractContextManager[None]:
    """Lift the limit for a `with` block, such as one that cleans up."""
    return _limited(None)


@contextmanager
def _limited(deadline: Deadline | None) -> Iterator[None]:
    token = _limit.set(deadline)
    try:
        yield
    finally:
        _limit.reset(token)


def current_limit() -> Deadline | None:
    """Return the deadline of the `time_limit` around this, or None."""
    return _limit.get()


def operation_deadline(seconds: float) -> Deadline:
    """Return the deadline of the `time_limit` around this.

    Without one, it is a deadline of these seconds.
    """
    return _limit.get() or Deadline(seconds)


def unlimited_context() -> Context:
    """Return a copy of the context for a task that outlives its call."""
    context = copy_context()
    context.run(_limit.set, None)
    return context


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
