"""Futures whose results nobody waits for."""

from __future__ import annotations

import asyncio
from typing import Any


def retrieve_exception(future: asyncio.Future[Any]) -> None:
    """Mark an exception as retrieved, or asyncio logs it when nobody awaited the future."""
    if not future.cancelled():
        future.exception()
