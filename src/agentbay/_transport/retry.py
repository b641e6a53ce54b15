"""Decide whether and when to send a request again.

| failure                                              | any action               | only if idempotent |
|------------------------------------------------------|--------------------------|--------------------|
| never sent: refused, no connection in time           | retry                    |                    |
| refused unprocessed: 429, 503 with Retry-After       | retry, honour Retry-After|                    |
| perhaps processed: answer lost or late, other 5xx    |                          | retry              |

The pauses follow exponential backoff with full jitter: each is a random time between 0 and a bound, so that many
clients do not come back at the same moment. The bound doubles with each attempt, from `_FIRST_BACKOFF_SECONDS` up to
`_MAX_BACKOFF_SECONDS`.
"""

from __future__ import annotations

from ..errors import (
    AgentBayError,
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    RateLimitError,
    ServerError,
    ServiceUnavailableError,
)

_FIRST_BACKOFF_SECONDS = 0.2  # bound of the first pause
_MAX_BACKOFF_SECONDS = 8.0  # the bound grows no further
_MAX_DOUBLINGS = 16  # reach it by far; 2**1024 is too large for a float


def retry_backoff(
    error: AgentBayError, attempt: int, *, idempotent: bool, max_retries: int, remaining: float
) -> float | None:
    """Return the seconds to wait before the next attempt, or None to give up.

    Args:
        error: Why the attempt failed.
        attempt: Number of attempts so far, at least 1.
        idempotent: Whether executing the request twice does the same as once.
        max_retries: Number of further attempts allowed; 0 never retries.
        remaining: Seconds until the deadline; a pause that would not end before it means giving up.
    """
    if attempt > max_retries or not _may_send_again(error, idempotent):
        return None
    pause = getattr(error, "retry_after", None)
    if pause is None:
        import random  # with the first retry

        doublings = min(attempt - 1, _MAX_DOUBLINGS)
        bound = min(_MAX_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2**doublings)
        pause = random.uniform(0, bound)  # full jitter
    return pause if pause < remaining else None


def _may_send_again(error: AgentBayError, idempotent: bool) -> bool:
    if isinstance(error, (ConnectionFailed, RateLimitError)):
        return True
    if isinstance(error, ServiceUnavailableError) and error.retry_after is not None:
        return True
    return idempotent and isinstance(error, (ConnectionLost, ServerError, DeadlineExceeded))
