"""Modules of the runtime that are imported when they are first needed."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

_modules: dict[str, Any] = {}


async def import_in_thread(name: str) -> Any:
    """Import a module of the runtime in a thread, unless it is imported already."""
    return _modules.get(name) or await asyncio.to_thread(import_now, name)


def import_now(name: str) -> Any:
    """Import a module of the runtime."""
    module = _modules[name] = import_module(f"agentbay.local.{name}")
    return module
