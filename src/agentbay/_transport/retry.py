"""Whether and when to send again: a pure decision.

| failure                                              | any action               | only if idempotent |
|------------------------------------------------------|--------------------------|--------------------|
| never sent: refused, no connection in time           | retry                    |                    |
| refused unprocessed: 429, 503 that says when         | retry, honour Retry-After|                    |
| perhaps processed: answer lost or late, other 5xx    |                          | retry              |
"""

from __future__ import annotations

import random

from ..errors import (
    AgentBayError,
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    RateLimitError,
    ServerError,
    ServiceUnavailableError,
)

_FIRST_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS = 0.2, 8.0


def retry_backoff(
    error: AgentBayError, attempt: int, *, idempotent: bool, max_retries: int, remaining: float
) -> float | None:
    """Seconds to wait before the next attempt, or None to give up.

    Args:
        error: Why the attempt failed.
        attempt: How many attempts have been made, 1 or more.
        idempotent: Whether executing the request twice does the same as once.
        max_retries: How often to send again; 0 is never.
        remaining: Seconds until the deadline; a pause never goes beyond it.
    """
    if attempt > max_retries or not _is_retryable(error, idempotent):
        return None
    advised = getattr(error, "retry_after", None)
    pause = (
        advised
        if advised is not None
        else random.uniform(0, min(_MAX_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2 ** (attempt - 1)))
    )
    return pause if pause < remaining else None


def _is_retryable(error: AgentBayError, idempotent: bool) -> bool:
    if isinstance(error, (ConnectionFailed, RateLimitError)):
        return True
    if isinstance(error, ServiceUnavailableError) and error.retry_after is not None:
        return True
    return idempotent and isinstance(error, (ConnectionLost, ServerError, DeadlineExceeded))
