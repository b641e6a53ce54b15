"""Make several calls concurrently, in tasks or in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

R = TypeVar("R")


async def async_at_once(calls: Sequence[Callable[[], Awaitable[R]]]) -> list[R]:
    """Make the calls concurrently in tasks, and return their results in order."""
    return list(await asyncio.gather(*[call() for call in calls]))


def sync_at_once(calls: Sequence[Callable[[], R]]) -> list[R]:
    """Make the calls concurrently in threads, and return their results in order."""
    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result() for future in [threads.submit(call) for call in calls]]
