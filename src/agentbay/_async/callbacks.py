"""The one place where functions of the user's are called back, and where whatever they raise stops."""

from __future__ import annotations

import logging
from collections.abc import Callable

from .._concurrency import async_invoke

_logger = logging.getLogger("agentbay")


async def invoke_callback(function: Callable[..., object], *args: object) -> None:
    """Call a function of the user's; an exception of it is logged, and harms nothing else."""
    try:
        await async_invoke(function, *args)
    except Exception:
        name = getattr(function, "__qualname__", type(function).__name__)
        _logger.exception("The callback %s raised an exception", name)
