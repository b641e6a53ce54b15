"""Several calls at once, whatever the flavour: in tasks, or in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

R = TypeVar("R")


async def async_at_once(calls: Sequence[Callable[[], Awaitable[R]]]) -> list[R]:
    """Make the calls at once; return their results in order, or raise what the first of them raised."""
    return list(await asyncio.gather(*[call() for call in calls]))


def sync_at_once(calls: Sequence[Callable[[], R]]) -> list[R]:
    """Make the calls at once; return their results in order, or raise what the first of them raised."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result() for future in [threads.submit(call) for call in calls]]
