"""What each action and tool does, one module per subject; importing this package registers them all."""

from __future__ import annotations

from agentbay.local.handlers import contexts, files, links, metrics, sessions, shell, tools

__all__ = ["contexts", "files", "links", "metrics", "sessions", "shell", "tools"]
