"""The handlers of actions and of WebSocket targets, by the modules that define them."""

from __future__ import annotations

from agentbay.local.handlers.handler_tables import ActionHandler, HandlerTable, TargetHandler

# A new module of handlers is listed here. The first ones are what most programs begin with.
ACTIONS = HandlerTable(
    ActionHandler,
    lambda handler: handler.action.spec.name,
    *("sessions", "tool_actions", "links", "contexts", "bindings", "images", "snapshots", "browser", "phone", "skills"),
)
TARGETS = HandlerTable(TargetHandler, lambda handler: handler.target, "code", "pty", "file_changes", "agents")
