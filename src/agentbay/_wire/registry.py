"""All actions and tools, for code that must know every one."""

from __future__ import annotations

from . import (
    beta_actions,
    browser_tools,
    context_store,
    contexts,
    device_actions,
    process_tools,
    sessions,
    tools,
    ui_tools,
)
from .schema import ACTIONS, TOOLS

# Importing the modules registers their classes.
__all__ = [
    "ACTIONS",
    "TOOLS",
    "beta_actions",
    "browser_tools",
    "context_store",
    "contexts",
    "device_actions",
    "process_tools",
    "sessions",
    "tools",
    "ui_tools",
]
