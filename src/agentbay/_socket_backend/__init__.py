"""Sockets that keep to a deadline, one class per flavour.

Like `_concurrency`, it holds what differs by flavour, and imports each half with its first name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .asynchronous import AsyncNetwork as AsyncNetwork, AsyncStream as AsyncStream
    from .synchronous import SyncNetwork as SyncNetwork, SyncStream as SyncStream


def __getattr__(name: str) -> object:
    half = "asynchronous" if name.startswith("Async") else "synchronous"
    value = globals()[name] = getattr(import_module(f".{half}", __name__), name)
    return value
