"""A connection to an MCP server, in a thread of its own.

The protocol's official client needs an event loop that lives as long as the connection, which neither flavour has.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import re
import shlex
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path, PurePath
from typing import Any, TextIO
from urllib.parse import urlsplit

from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT, CallToolResult, Tool

from ._arguments import check_variable
from ._lazy_attrs import define
from ._wire.tools import ToolReply
from .errors import (
    ConfigurationError,
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    InvalidArgumentError,
    ToolError,
)
from .models.tools import McpTool

_CLOSE_SECONDS = 10.0  # for a server to end, which is killed before that
_MAX_PAGES = 1000  # of a list of tools
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, token


@define
class Server:
    """A server to connect to.

    Attributes:
        label: How errors and lists name it; without what may be secret.
        url: Its address; "" if it is a command.
        argv: The command that starts it.
        envs: Variables of that command.
        headers: What goes with each request to the address.
    """

    label: str
    url: str
    argv: list[str]
    envs: dict[str, str]
    headers: dict[str, str]

    @classmethod
    def read(
        cls, server: str | Sequence[str], envs: Mapping[str, str] | None, headers: Mapping[str, str] | None
    ) -> Server:
        """Read what the user names a server by.

        Raises:
            InvalidArgumentError: It is neither an address nor a command, or an option belongs to the other one.
        """
        is_url = isinstance(server, str) and server.startswith(("http://", "https://"))
        if is_url and envs is not None:
            raise InvalidArgumentError("envs is for servers that are started by a command, not for an address")
        if not is_url and headers is not None:
            raise InvalidArgumentError("headers is for servers at an address, not for a command")
        if isinstance(server, str) and is_url:
            return cls(_address_label(server), server, [], {}, _checked_headers(headers or {}))
        try:
            argv = shlex.split(server) if isinstance(server, str) else list(server)
        except ValueError as error:
            raise InvalidArgumentError(f"server is no command line: {error}") from error
        if not argv:
            raise InvalidArgumentError("server must be an address or a command, and is empty")
        for name, value in (envs or {}).items():
            check_variable("envs", name, value)
        return cls(PurePath(argv[0]).name, "", argv, dict(envs or {}), {})


def _address_label(address: str) -> str:
    """Return an address without what may be secret.

    Raises:
        InvalidArgumentError: It is none, which is not shown.
    """
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError as error:
        raise InvalidArgumentError(f"server is no address: {error}") from None
    if not parts.hostname:
        raise InvalidArgumentError("server is an address without a host")
    return parts.netloc.rpartition("@")[2] + parts.path


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise InvalidArgumentError(f"headers must not have {name!r:.40} as a name")
        if not (value.isascii() and value.isprintable()):
            raise InvalidArgumentError(f"headers[{name!r:.40}] must be printable ASCII")
    return dict(headers)


class McpConnection:
    """A connection to one server.

    Attributes:
        label: How errors and lists name the server.
        tools: Its tools, as it listed them when it was mounted.
    """

    def __init__(self, server: Server, label: str) -> None:
        self.label, self.tools = label, list[McpTool]()
        self._server, self._pid = server, os.getpid()
        self._opened: Future[list[McpTool]] = Future()
        self._loop = asyncio.new_event_loop()
        self._client: Client | None = None
        self._ending = asyncio.Event()
        self._living: asyncio.Task[None] | None = None
        self._lock, self._is_closed, self._join_seconds = threading.Lock(), False, _CLOSE_SECONDS
        self._thread = threading.Thread(target=self._work, name=f"agentbay-mcp-{label}", daemon=True)

    def open(self, seconds: float) -> None:
        """Connect, and learn the server's tools.

        Raises:
            ConfigurationError: The command cannot be started.
            ConnectionFailed: The server does not speak the protocol, or refuses.
            DeadlineExceeded: It did not answer in time.
        """
        self._thread.start()
        try:
            self.tools = self._opened.result(seconds)
        except TimeoutError:
            # Its end may take seconds, for which the program waits when it ends, and not here.
            self._join_seconds = 0.0
            atexit.register(self._thread.join, _CLOSE_SECONDS)
            raise DeadlineExceeded(f"The MCP server {self.label} did not answer within {seconds:g} s.") from None
        except OSError as error:
            text = f"The MCP server {self.label} cannot be started: {error.strerror or error}."
            raise ConfigurationError(text) from error

    def start_call(self, name: str, arguments: dict[str, Any], seconds: float) -> Future[ToolReply]:
        """Start to call a tool.

        Cancelling what is returned cancels the call in the server.
        """
        return self._submit(self._call(name, arguments, seconds))

    def close(self) -> None:
        """Disconnect, and end a server that was started.

        One that did not answer in time is ended in the background.
        """
        if self._pid != os.getpid() or not self._thread.is_alive():
            return
        with contextlib.suppress(RuntimeError):  # it has just ended
            self._loop.call_soon_threadsafe(self._end)
        if self._thread is not threading.current_thread():
            self._thread.join(self._join_seconds)

    def _submit(self, work: Coroutine[Any, Any, ToolReply]) -> Future[ToolReply]:
        if self._pid == os.getpid():  # the lock may be held by a thread that a forked child does not have
            with self._lock:
                if not self._is_closed:
                    return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        raise self._lost()

    async def _call(self, name: str, arguments: dict[str, Any], seconds: float) -> ToolReply:
        assert self._client is not None
        try:
            async with asyncio.timeout(seconds):
                return _to_reply(await self._client.call_tool(name, arguments))
        except TimeoutError:
            raise self._late(name, seconds) from None
        except asyncio.CancelledError:
            if self._is_closed:
                raise self._lost() from None
            raise
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                raise self._lost() from error
            if error.code == REQUEST_TIMEOUT:
                raise self._late(name, seconds) from error
            raise ToolError(f"{name}: {error.message}") from error

    def _late(self, name: str, seconds: float) -> DeadlineExceeded:
        return DeadlineExceeded(f"The tool {name} of the MCP server {self.label} took longer than {seconds:g} s.")

    def _lost(self) -> ConnectionLost:
        text = f"The MCP server {self.label} has ended, or was mounted in another process."
        return ConnectionLost(text, hint="unmount_mcp() it, and mount it again.")

    # ── In the thread ────────────────────────────────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        with contextlib.closing(self._loop):
            self._living = self._loop.create_task(self._live())
            self._loop.run_until_complete(self._living)
            with self._lock:
                self._is_closed = True
            self._loop.run_until_complete(_end_calls())

    def _end(self) -> None:
        self._ending.set()
        if self._living is not None and not self._opened.done():  # it still connects
            self._living.cancel()

    async def _live(self) -> None:
        try:
            async with self._connect() as self._client:
                self._opened.set_result(await _list_tools(self._client, self.label))
                await self._ending.wait()
        except BaseException as error:  # noqa: BLE001 - raised where the connection is waited for
            if not self._opened.done():
                self._opened.set_exception(self._explain(error))

    def _explain(self, error: BaseException) -> BaseException:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, OSError) and not self._server.url:
            return error
        # Errors of the HTTP library name the address, which may carry a key.
        reason = error.message if isinstance(error, MCPError) else type(error).__name__
        return ConnectionFailed(f"The MCP server {self.label} cannot be used: {reason}.")

    @contextlib.asynccontextmanager
    async def _connect(self) -> AsyncIterator[Client]:
        if self._server.url:
            async with (
                create_mcp_http_client(self._server.headers) as http,
                Client(streamable_http_client(self._server.url, http_client=http)) as client,
            ):
                yield client
            return
        command, *args = self._server.argv
        parameters = StdioServerParameters(command=command, args=args, env=self._server.envs)
        with _open_standard_error() as errors:
            async with Client(stdio_client(parameters, errors)) as client:
                yield client


async def _end_calls() -> None:
    await asyncio.sleep(0)  # those that were started just now become tasks
    calls = asyncio.all_tasks() - {asyncio.current_task()}
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


def _open_standard_error() -> TextIO:
    # In a notebook `sys.stderr` is no file, which a process could write to.
    try:
        return os.fdopen(os.dup(2), "w")
    except OSError:  # a daemon without one
        return Path(os.devnull).open("w", encoding="utf-8")


def _to_reply(result: CallToolResult) -> ToolReply:
    content = [item.model_dump(mode="json", by_alias=True, exclude_none=True) for item in result.content]
    return ToolReply(content=content, is_error=result.is_error, structured_content=result.structured_content)


def _to_tool(tool: Tool, label: str) -> McpTool:
    # A tool without parameters may say so by an empty schema, which frameworks refuse.
    schema = {"type": "object", "properties": {}, **tool.input_schema}
    return McpTool(tool.name, label, description=tool.description or tool.title or tool.name, input_schema=schema)


async def _list_tools(client: Client, label: str) -> list[McpTool]:
    tools: list[McpTool] = []
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += [_to_tool(tool, label) for tool in page.tools]
        cursor = page.next_cursor
        if not cursor:
            break
    return tools
