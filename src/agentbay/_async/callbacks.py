"""The one place where functions of the user's are called back, and where whatever they raise stops."""

from __future__ import annotations

import logging
from collections.abc import Callable

from .._concurrency import async_applied

_log = logging.getLogger("agentbay")


async def call_back(function: Callable[..., object], *args: object) -> None:
    """Call a function of the user's; an exception of it is logged, and harms nothing else."""
    try:
        await async_applied(function, *args)
    except Exception:  # noqa: BLE001 - the dispatcher of callbacks: what users' code raises must not stop our own
        name = getattr(function, "__qualname__", type(function).__name__)
        _log.exception("The callback %s raised an exception", name)
