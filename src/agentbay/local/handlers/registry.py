"""The handlers of actions and of WebSocket targets, by the modules that define them."""

from __future__ import annotations

from agentbay.local.handlers.dispatch import ActionHandler, HandlerTable, TargetHandler

# A new module of handlers is listed here. The first ones are what most programs begin with.
ACTIONS = HandlerTable(
    ActionHandler,
    lambda handler: handler.action.spec.name,
    *("sessions", "tools", "links", "contexts", "bindings", "images", "snapshots", "browser", "phone", "beta"),
)
TARGETS = HandlerTable(TargetHandler, lambda handler: handler.target, "code", "pty", "file_changes", "agents")
