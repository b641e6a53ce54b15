"""Every action and tool there is, for the side that must know them all."""

from __future__ import annotations

from . import contexts, sessions, tools
from .schema import ACTIONS, TOOLS

__all__ = ["ACTIONS", "TOOLS", "contexts", "sessions", "tools"]  # importing the modules registers their classes
