"""What each action and tool does, one module per subject; importing this package registers them all."""

from __future__ import annotations

from agentbay.local.handlers import (
    bindings,
    code,
    contexts,
    env,
    file_changes,
    files,
    links,
    metrics,
    oss,
    pty,
    sessions,
    shell,
    tools,
)

__all__ = [
    "bindings",
    "code",
    "contexts",
    "env",
    "file_changes",
    "files",
    "links",
    "metrics",
    "oss",
    "pty",
    "sessions",
    "shell",
    "tools",
]
