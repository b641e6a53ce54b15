"""Delays between polls."""

from __future__ import annotations

from collections.abc import Iterator

from .deadline import Deadline

LAST_POLL_SECONDS = 1.0  # for a poll that is made when the time is over


def poll_delays(deadline: Deadline, *, first: float, factor: float = 1.0, cap: float | None = None) -> Iterator[float]:
    """Yield the seconds to wait after each poll, until the deadline.

    They grow by `factor` each time, up to `cap` seconds.
    """
    delay = first
    while (left := deadline.remaining()) > 0:
        yield min(delay, left)
        delay = delay * factor if cap is None else min(delay * factor, cap)
