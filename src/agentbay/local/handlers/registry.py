"""The registry of handlers, which lists the modules that define them."""

from __future__ import annotations

from collections.abc import Mapping

from agentbay._lazy_attrs import define
from agentbay.local.handlers import (
    agents,
    beta,
    bindings,
    browser,
    code,
    contexts,
    file_changes,
    images,
    links,
    phone,
    pty,
    sessions,
    snapshots,
    tools,
)
from agentbay.local.handlers.dispatch import ActionHandler, TargetHandler, collect_handlers

_ACTION_MODULES = (beta, bindings, browser, contexts, images, links, phone, sessions, snapshots, tools)
_TARGET_MODULES = (agents, code, file_changes, pty)


@define(frozen=True, slots=False)
class HandlerRegistry:
    """Handlers by the name of their action or target."""

    actions: Mapping[str, ActionHandler]
    targets: Mapping[str, TargetHandler]


def build_registry() -> HandlerRegistry:
    """Collect the handlers of the modules listed above."""
    return HandlerRegistry(
        actions={handler.action.spec.name: handler for handler in collect_handlers(ActionHandler, _ACTION_MODULES)},
        targets={handler.target: handler for handler in collect_handlers(TargetHandler, _TARGET_MODULES)},
    )
