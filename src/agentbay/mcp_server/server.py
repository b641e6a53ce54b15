"""The server: which tools it has, and the transports it speaks."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import inspect
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any

import uvicorn
from attrs import frozen
from mcp.server.mcpserver import MCPServer

from agentbay import AsyncAgentBay, CreateSessionParams, __version__
from agentbay._concurrency import async_start_background
from agentbay._wire.tools import ListMcpTools
from agentbay.errors import ConfigurationError, InvalidArgumentError

from .commands import CodeTools, CommandTools
from .current_session import CurrentSession
from .files import FileTools, LinkTools
from .screens import BrowserTools, DesktopTools
from .tool_group import ToolGroup, ToolMark

TOOLBOXES: tuple[type[ToolGroup], ...] = (CommandTools, CodeTools, FileTools, LinkTools, BrowserTools, DesktopTools)
TOKEN_VARIABLE = "AGENTBAY_MCP_TOKEN"
_GRACE_SECONDS = 5  # that calls under way have at the end
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_INSTRUCTIONS = (
    "These tools work in one sandbox: an isolated Linux machine. Its files and processes last until this server ends. "
    "Nothing there can reach the user's own files."
)


@frozen
class ServerOptions:
    """What `agentbay mcp` was asked for.

    Attributes:
        image: Image of the session; "" is the service's default.
        session_id: Session to work in; "" makes one.
        private: Whether to start a private runtime, instead of using the service that the environment names.
        allow_hosts: Hosts that a private runtime lets sessions reach, beside the usual ones.
        read_only: Offer only tools that change nothing.
        tools: Names of groups and tools to offer; empty is all that the session has.
    """

    image: str = ""
    session_id: str = ""
    private: bool = False
    allow_hosts: Sequence[str] = ()
    read_only: bool = False
    tools: Sequence[str] = ()


async def serve_stdio(options: ServerOptions) -> None:
    """Serve one client on standard input and output."""
    async with _open(options) as (server, current):
        _end_on_signal(current)
        await server.run_stdio_async()


async def serve_http(options: ServerOptions, host: str, port: int, ready: Callable[[str], object]) -> None:
    """Serve clients over streamable HTTP at `/mcp`, all in the same session.

    Args:
        ready: Called with the URL when the server listens.

    Raises:
        ConfigurationError: The address can be reached from other machines, and there is no token.
    """
    token = os.environ.get(TOKEN_VARIABLE, "")
    if host not in _LOOPBACK and not token:
        raise ConfigurationError(
            f"Without a token, everybody who reaches {host} could run commands: set {TOKEN_VARIABLE}.",
            hint="Clients send it as: Authorization: Bearer TOKEN",
        )
    async with _open(options) as (server, _):
        app: Any = server.streamable_http_app(host=host)
        app = _RequireToken(app, token) if token else app
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family) as listening:
            ready(f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/mcp")
            config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=_GRACE_SECONDS)
            await uvicorn.Server(config).serve([listening])


@contextlib.asynccontextmanager
async def _open(options: ServerOptions) -> AsyncIterator[tuple[MCPServer, CurrentSession]]:
    """Make the server, and delete its session at the end."""
    bay = AsyncAgentBay.local(allow_hosts=options.allow_hosts) if options.private else AsyncAgentBay()
    params = CreateSessionParams(image_id=options.image or None, labels={"made-by": "agentbay-mcp"})
    async with bay, CurrentSession(bay, params, options.session_id, guarded=not options.private) as current:
        yield await make_server(current, options), current


async def make_server(current: CurrentSession, options: ServerOptions) -> MCPServer:
    """Make the server with the tools that session and options allow.

    Raises:
        InvalidArgumentError: The options choose a tool that there is not.
    """
    offered = await _tools_of_service(current, options)
    server = MCPServer("agentbay", instructions=_INSTRUCTIONS, version=__version__, log_level="WARNING")
    known: set[str] = set()
    for kind in TOOLBOXES:
        group = kind(current)
        known.add(kind.group)
        for name, mark, method in group.tools():
            known.add(name)
            if _is_chosen(kind.group, name, mark, options) and mark.needs in offered:
                annotations = mark.annotations(name.replace("_", " ").capitalize())
                description = inspect.getdoc(method)  # without the indentation of the source
                server.add_tool(method, name, None, description, annotations, structured_output=False)
    if unknown := sorted(set(options.tools) - known):
        groups = ", ".join(kind.group for kind in TOOLBOXES)
        raise InvalidArgumentError(f"There is no tool {', '.join(unknown)}. Groups of tools are {groups}.")
    return server


async def _tools_of_service(current: CurrentSession, options: ServerOptions) -> Collection[str]:
    if options.session_id:
        tools = {tool.name for tool in (await current.get()).mcpTools}
    else:
        reply = await current.bay.client.call(ListMcpTools(image_id=options.image or "linux_latest"))
        tools = {entry.name for entry in reply.data or ()}
    return {"", *tools}


def _is_chosen(group: str, name: str, mark: ToolMark, options: ServerOptions) -> bool:
    chosen = not options.tools or group in options.tools or name in options.tools
    return chosen and not (options.read_only and mark.writes)


def _end_on_signal(current: CurrentSession) -> None:
    """Delete the session when a signal comes.

    A thread of the transport waits for input. That thread cannot be interrupted, so this process ends without it.
    """

    async def end(number: int) -> None:
        await current.close()
        await current.bay.aclose()
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows, where such a process is ended otherwise
            asyncio.get_running_loop().add_signal_handler(number, async_start_background, partial(end, number))


class _RequireToken:
    """Refuses requests that do not carry the token."""

    def __init__(self, app: Callable[..., Awaitable[None]], token: str) -> None:
        self._app, self._expected = app, f"Bearer {token}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        header = dict(scope.get("headers") or ()).get(b"authorization", b"")
        if scope["type"] == "http" and not hmac.compare_digest(header, self._expected):
            await send({"type": "http.response.start", "status": 401, "headers": [(b"www-authenticate", b"Bearer")]})
            await send({"type": "http.response.body", "body": b"This server needs a token."})
            return
        await self._app(scope, receive, send)
