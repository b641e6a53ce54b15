"""The MCP servers whose tools a session offers beside its own."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from .errors import ConfigurationError, InvalidArgumentError
from .models.tools import McpTool

if TYPE_CHECKING:
    from ._mcp_connection import McpConnection


_adding = threading.Lock()  # one for all sessions: it is held for a moment, and rarely


class McpMounts:
    """The mounted servers of a session, each with a connection of its own.

    All are disconnected when nobody holds this any more, and at the end of the program.
    """

    __slots__ = ("__weakref__", "_by_label")  # each session has this, and few have a server

    def __init__(self) -> None:
        self._by_label: dict[str, McpConnection] = {}

    def __len__(self) -> int:
        return len(self._by_label)

    def tools(self) -> list[McpTool]:
        """List the tools of all servers, in the order of mounting."""
        return [tool for connection in list(self._by_label.values()) for tool in connection.tools]

    def find(self, tool_name: str) -> McpConnection | None:
        """Return the server that has a tool, or None."""
        for connection in list(self._by_label.values()):
            if any(tool.name == tool_name for tool in connection.tools):
                return connection
        return None

    def add(self, connection: McpConnection, own_tools: Iterable[McpTool]) -> None:
        """Add a connected server.

        Raises:
            InvalidArgumentError: A name of its tools is taken by the session or by another server.
        """
        with _adding:
            taken = {tool.name for tool in (*own_tools, *self.tools())}
            if clashes := sorted(taken.intersection(tool.name for tool in connection.tools)):
                raise InvalidArgumentError(
                    f"The MCP server {connection.label} has tools whose names are taken here: {', '.join(clashes)}.",
                    hint="Unmount the other server, or let this one offer them by other names.",
                )
            if not self._by_label:
                weakref.finalize(self, _close_all, self._by_label)
            self._by_label[connection.label] = connection

    def make_label(self, base: str) -> str:
        """Return a label that no mounted server has."""
        label, number = base, 2
        while label in self._by_label:
            label, number = f"{base}-{number}", number + 1
        return label

    def remove(self, label: str) -> McpConnection:
        """Forget a server and return its connection.

        Raises:
            InvalidArgumentError: There is no such server.
        """
        connection = self._by_label.pop(label, None)
        if connection is None:
            known = ", ".join(self._by_label) or "none"
            raise InvalidArgumentError(f"No MCP server {label!r:.80} is mounted in this session; mounted: {known}.")
        return connection

    def close(self) -> None:
        """Disconnect from all servers."""
        _close_all(self._by_label)


def _close_all(connections: dict[str, McpConnection]) -> None:
    while connections:
        _, connection = connections.popitem()
        connection.close()


def make_connection(
    mounts: McpMounts, server: str | Sequence[str], envs: Mapping[str, str] | None, headers: Mapping[str, str] | None
) -> McpConnection:
    """Make a connection to a server, which is not open yet.

    Raises:
        ConfigurationError: The package mcp is missing.
        InvalidArgumentError: The server is neither an address nor a command.
    """
    if find_spec("mcp") is None:
        raise ConfigurationError('Mounting MCP servers needs the package mcp: pip install "agentbay-sdk[mcp]"')
    # With the first server, since asyncio and mcp take long to import.
    from ._mcp_connection import McpConnection, Server

    found = Server.read(server, envs, headers)
    return McpConnection(found, mounts.make_label(found.label))
