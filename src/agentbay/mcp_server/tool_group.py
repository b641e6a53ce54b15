"""What all tools have in common: declaration, errors, length."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ClassVar, ParamSpec, TypeVar

from attrs import frozen
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

from agentbay.errors import AgentBayError, SessionNotFoundError

from .current_session import CurrentSession

P = ParamSpec("P")
R = TypeVar("R")
_MARK = "_mcp_tool"
_MAX_TEXT = 60_000  # characters of one answer; more would fill a model's context


@frozen
class ToolMark:
    """What `tool` notes at a method.

    Attributes:
        writes: Whether it changes anything in the session.
        destroys: Whether it can remove or replace what is there.
        needs: The tool of the service that it calls, or "".
    """

    writes: bool
    destroys: bool
    needs: str

    def annotations(self, title: str) -> ToolAnnotations:
        """Return what clients are told about the tool."""
        return ToolAnnotations(
            title=title, read_only_hint=not self.writes, destructive_hint=self.destroys, open_world_hint=self.writes
        )


def tool(
    *, writes: bool = True, destroys: bool = False, needs: str = ""
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
    """Declare a method of a `ToolGroup` as a tool.

    The arguments are those of `ToolMark`. Its errors become messages for the model, with what to do about them.
    """

    def decorate(method: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        @functools.wraps(method)
        async def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return await method(*args, **kwargs)
            except SessionNotFoundError as error:
                raise ToolError(_ended_message(args[0])) from error
            except AgentBayError as error:
                raise ToolError(f"{error.message}\n{error.hint}" if error.hint else error.message) from error
            except ValueError as error:  # an argument that the client refuses
                raise ToolError(str(error)) from error

        setattr(call, _MARK, ToolMark(writes, destroys, needs))
        return call

    return decorate


def _ended_message(group: object) -> str:
    assert isinstance(group, ToolGroup)
    if not group.current.forget():
        return "The session has ended, and this server was started for that session alone."
    return "The session has ended, with its files and processes. The next call starts a new, empty one."


class ToolGroup:
    """A group of tools that work in the current session.

    Attributes:
        group: The name by which `--tools` selects all of them.
    """

    group: ClassVar[str]

    def __init__(self, current: CurrentSession) -> None:
        self.current = current

    def tools(self) -> Iterator[tuple[str, ToolMark, Callable[..., Any]]]:
        """Yield name, mark and method of each tool, in the order of the class."""
        for name, member in vars(type(self)).items():
            if mark := getattr(member, _MARK, None):
                yield name, mark, getattr(self, name)


def shorten(text: str, limit: int = _MAX_TEXT) -> str:
    """Return a text, without its middle if it is too long for a model."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out here ...]\n{text[-half:]}"
