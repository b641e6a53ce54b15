"""Calls of the user's callbacks, which may raise anything."""

from __future__ import annotations

import logging
from collections.abc import Callable

from .._concurrency import async_invoke

_logger = logging.getLogger("agentbay")


async def invoke_callback(function: Callable[..., object], *args: object) -> None:
    """Call a callback of the user's, and log what it raises."""
    try:
        await async_invoke(function, *args)
    # A callback's fault must not end the reader or worker that calls it. Cancellation is no Exception and passes.
    except Exception:
        name = getattr(function, "__qualname__", type(function).__name__)
        _logger.exception("The callback %s raised an exception", name)
