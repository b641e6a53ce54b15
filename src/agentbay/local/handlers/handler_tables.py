"""Which function handles an action, a tool or a WebSocket target.

The decorators only wrap a function together with what it handles; the tables in `registry` and `tool_calls` collect the
wrapped ones of the modules that they list.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from types import ModuleType
from typing import Any, Generic, TypeVar

from agentbay._lazy_attrs import define
from agentbay._wire.schema import Action, Tool
from agentbay._wire.tools import ToolReply
from agentbay.local.lazy_imports import import_in_thread, import_now
from agentbay.local.runtime import Runtime
from agentbay.local.sessions.hub import WebSocketRequest
from agentbay.local.sessions.session import Session

_A = TypeVar("_A", bound=Action[Any])
_T = TypeVar("_T", bound=Tool)
_H = TypeVar("_H", bound="ActionHandler | ToolHandler | RawToolHandler | TargetHandler")

TargetFunction = Callable[[Session, WebSocketRequest], Awaitable[None]]


@define(frozen=True, slots=False)
class ActionHandler:
    """The function that does an action, and returns data, a `ListPage` or None."""

    action: type[Action[Any]]
    run: Callable[[Runtime, Any], Awaitable[object]]


@define(frozen=True, slots=False)
class ToolHandler:
    """The function that does a tool's work in a session."""

    tool: type[Tool]
    run: Callable[[Session, Any], Awaitable[ToolReply]]


@define(frozen=True, slots=False)
class RawBody:
    """The bytes that come with a raw call: how many, and their pieces."""

    size: int
    pieces: AsyncIterator[bytes]


@define(frozen=True, slots=False)
class RawReply:
    """The bytes that answer a raw call, and the JSON result in their header.

    `size` is None if their number is not known before.
    """

    size: int | None
    pieces: AsyncGenerator[bytes, None]
    result: dict[str, Any]


@define(frozen=True, slots=False)
class RawToolHandler:
    """The function that does a tool's work with raw bytes."""

    tool: type[Tool]
    run: Callable[[Session, Any, RawBody], Awaitable[ToolReply | RawReply]]


@define(frozen=True, slots=False)
class TargetHandler:
    """The function that answers requests to a target over a session's WebSocket.

    It runs up to its first wait before the next frame is read, so requests that do not wait are done in order. It is
    cancelled when the client cancels the request or disconnects.
    """

    target: str
    run: TargetFunction


def action_handler(cls: type[_A]) -> Callable[[Callable[[Runtime, _A], Awaitable[object]]], ActionHandler]:
    """Mark the function that does an action."""
    return lambda function: ActionHandler(cls, function)


def tool_handler(cls: type[_T]) -> Callable[[Callable[[Session, _T], Awaitable[ToolReply]]], ToolHandler]:
    """Mark the function that does a tool's work."""
    return lambda function: ToolHandler(cls, function)


def raw_tool_handler(
    cls: type[_T],
) -> Callable[[Callable[[Session, _T, RawBody], Awaitable[ToolReply | RawReply]]], RawToolHandler]:
    """Mark the function that does a tool's work with raw bytes."""
    return lambda function: RawToolHandler(cls, function)


def target_handler(target: str) -> Callable[[TargetFunction], TargetHandler]:
    """Mark the function that answers requests to a WebSocket target."""
    return lambda function: TargetHandler(target, function)


class HandlerTable(Generic[_H]):
    """The handlers of one kind, by name.

    Args:
        kind: Their class.
        name_of: Returns the name that a handler answers to.
        *modules: Those of `local.handlers` that define them. Each is imported once a name is not found in those before.

    Attributes:
        modules: Their names, as `import_in_thread` takes them.
    """

    def __init__(self, kind: type[_H], name_of: Callable[[_H], str], *modules: str) -> None:
        self._kind, self._name_of = kind, name_of
        self.modules = [f"handlers.{module}" for module in modules]
        self._found: dict[str, _H] = {}

    async def find(self, name: str) -> _H | None:
        """Return the handler of a name."""
        for module in self.modules:
            if name in self._found:
                break
            self._collect(await import_in_thread(module))
        return self._found.get(name)

    def all(self) -> dict[str, _H]:
        """Return all handlers, in the order of their modules' names."""
        self._found = {}
        for module in sorted(self.modules):
            self._collect(import_now(module))
        return self._found

    def _collect(self, module: ModuleType) -> None:
        self._found |= {self._name_of(value): value for value in vars(module).values() if isinstance(value, self._kind)}
