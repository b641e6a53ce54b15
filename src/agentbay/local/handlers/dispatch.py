"""Which function does an action, and which a tool. A handler registers itself where it is defined."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from agentbay._wire.schema import Action, Tool
from agentbay._wire.tools import ToolReply
from agentbay.local.runtime import Runtime
from agentbay.local.sessions.hub import WebSocketRequest
from agentbay.local.sessions.session import Session

_A = TypeVar("_A", bound=Action[Any])
_T = TypeVar("_T", bound=Tool)

ACTION_HANDLERS: dict[str, tuple[type[Action[Any]], Callable[[Runtime, Any], Awaitable[object]]]] = {}
TOOL_HANDLERS: dict[str, tuple[type[Tool], Callable[[Session, Any], Awaitable[ToolReply]]]] = {}
TARGET_HANDLERS: dict[str, Callable[[Session, WebSocketRequest], Awaitable[None]]] = {}


def action_handler(
    cls: type[_A],
) -> Callable[[Callable[[Runtime, _A], Awaitable[object]]], Callable[[Runtime, _A], Awaitable[object]]]:
    """Register the function that does an action; it returns the data of the answer, a `Page` of it, or None."""

    def register(handler: Callable[[Runtime, _A], Awaitable[object]]) -> Callable[[Runtime, _A], Awaitable[object]]:
        ACTION_HANDLERS[cls.spec.name] = (cls, handler)
        return handler

    return register


def tool_handler(
    cls: type[_T],
) -> Callable[[Callable[[Session, _T], Awaitable[ToolReply]]], Callable[[Session, _T], Awaitable[ToolReply]]]:
    """Register the function that does a tool's work in a session."""

    def register(
        handler: Callable[[Session, _T], Awaitable[ToolReply]],
    ) -> Callable[[Session, _T], Awaitable[ToolReply]]:
        TOOL_HANDLERS[cls.tool] = (cls, handler)
        return handler

    return register


def target_handler(
    target: str,
) -> Callable[
    [Callable[[Session, WebSocketRequest], Awaitable[None]]], Callable[[Session, WebSocketRequest], Awaitable[None]]
]:
    """Register the function that does what is asked of a target over a session's WebSocket.

    It runs up to its first wait before the next frame is looked at, so what does not wait is done in order. It is
    cancelled when the client cancels the request or goes away.
    """

    def register(
        handler: Callable[[Session, WebSocketRequest], Awaitable[None]],
    ) -> Callable[[Session, WebSocketRequest], Awaitable[None]]:
        TARGET_HANDLERS[target] = handler
        return handler

    return register
