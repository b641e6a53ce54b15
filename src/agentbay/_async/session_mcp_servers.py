"""Tools of other MCP servers in a session."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._arguments import checked_arguments
from .._concurrency import async_run_blocking
from .._mcp_mounts import McpMounts, make_connection
from .._transport.deadline import time_limit
from ..models.tools import McpTool
from .services import AsyncSessionServices

if TYPE_CHECKING:
    from .._mcp_connection import McpConnection
    from .._wire.tools import ToolReply


@checked_arguments()
class AsyncSessionMcpServers(AsyncSessionServices):
    """Give a session the tools of other MCP servers."""

    _mcp_mounts: McpMounts

    async def mount_mcp(
        self,
        server: str | Sequence[str],
        *,
        envs: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> list[McpTool]:
        """Offer the tools of another MCP server beside those of the session.

        `list_mcp_tools` lists them and `call_mcp_tool` calls them, for as long as this handle of the session is used;
        nothing changes in the service. A command runs on this machine, not in the session, with the few variables that
        the protocol's client passes on. It ends when the session is deleted or this program ends.

        Args:
            server: The address of a server that speaks streamable HTTP, or the command that starts one which speaks
                over standard input and output: a line, or a program and its arguments.
            envs: Further environment variables of the command.
            headers: HTTP headers for an address, such as `{"Authorization": "Bearer ..."}`.
            timeout: Seconds that it may take.

        Returns:
            The tools that it adds. Their `server` is the name for `unmount_mcp`.

        Raises:
            InvalidArgumentError: The name of a tool is taken, or an argument is wrong.
            ConfigurationError: The command cannot be started, or the package mcp is missing.
            ConnectionFailed: The server does not speak the protocol, or refuses.
            DeadlineExceeded: It took longer.
            SessionNotFoundError: The session has ended.

        Wire: GetSession, ListMcpTools
        """
        connection = make_connection(self._mcp_mounts, server, envs, headers)
        try:
            with time_limit(timeout):
                await async_run_blocking(connection.open, min(timeout, threading.TIMEOUT_MAX))
                (await self._session.agent_bay.get_session(self._session.session_id)).unwrap()  # it may have ended
                self._mcp_mounts.add(connection, await self._session.list_mcp_tools())
        except BaseException:
            await async_run_blocking(connection.close)
            raise
        return list(connection.tools)

    async def unmount_mcp(self, server: str) -> None:
        """Take the tools of a server away, and disconnect from it.

        Args:
            server: Its name, as `McpTool.server` has it.

        Raises:
            InvalidArgumentError: No such server is mounted.
        """
        await async_run_blocking(self._mcp_mounts.remove(server).close)

    async def _close_mcp_mounts(self) -> None:
        if self._mcp_mounts:
            await async_run_blocking(self._mcp_mounts.close)

    async def _call_mounted_tool(
        self, connection: McpConnection, name: str, args: dict[str, Any], seconds: float
    ) -> ToolReply:
        call = connection.start_call(name, args, seconds)
        try:
            return await async_run_blocking(call.result)
        except BaseException:
            call.cancel()
            raise
