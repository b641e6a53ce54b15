"""The service on its socket: sessions, application and web server put together."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import uvicorn

from agentbay._wire.converter import structure
from agentbay._wire.form import read_fields
from agentbay._wire.sessions import CreateMcpSession, SessionCreated
from agentbay._wire.tools import CallMcpTool, Shell, ToolReply
from agentbay.local import envelope
from agentbay.local.app import Application
from agentbay.local.contexts.desk import Desk
from agentbay.local.runtime import Runtime
from agentbay.local.sandbox.host import SandboxHost
from agentbay.local.sessions import SessionTable
from agentbay.local.state_dir import StateDirectory
from agentbay.local.tooling import catalogue

_KEEP_ALIVE = 75  # seconds; clients let go of an idle connection before that
_LARGEST_FRAME = 64 << 20
_HEARTBEAT = 20.0  # seconds between pings to WebSocket clients, and that a pong may take
_LAST_ANSWERS = 5  # seconds for answers still under way at the end


@asynccontextmanager
async def serving(
    host: SandboxHost, state_dir: StateDirectory, listener: socket.socket, *, key: str, links: bool
) -> AsyncIterator[asyncio.Task[None]]:
    """Serve on `listener`; at the end all sessions are ended first. Yields a task that ends if the server does."""
    sessions, contexts = SessionTable(host, state_dir), Desk(state_dir, host.owner)
    address, port = listener.getsockname()
    server = _WebServer(Application(Runtime(sessions, contexts, f"{address}:{port}", links), key))
    sweeping = asyncio.create_task(asyncio.to_thread(state_dir.sweep, state_dir.leftovers()))
    working = asyncio.create_task(server.serve([listener]))
    try:
        await asyncio.wait(
            [working, started := asyncio.create_task(server.ready.wait())], return_when="FIRST_COMPLETED"
        )
        started.cancel()
        yield working
    finally:
        await sessions.close()
        server.stop()
        await asyncio.gather(working, sweeping)
        await contexts.close()


def warm_up() -> None:
    """Do once what the first requests would otherwise wait for: converters are compiled when they are first used."""
    envelope.success(CreateMcpSession.spec, SessionCreated(tool_list=catalogue()), "")
    envelope.success(CallMcpTool.spec, structure({"content": []}, ToolReply), "")
    structure({"command": ""}, Shell)
    read_fields(CreateMcpSession, {})


def _websocket_protocol(**options: Any) -> asyncio.Protocol:
    # Loaded with the first WebSocket: it takes as long as all that is needed to be ready.
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    return WebSocketsSansIOProtocol(**options)


class _WebServer(uvicorn.Server):
    """A uvicorn server that leaves signals alone and, when there is nothing to do, does nothing."""

    def __init__(self, app: Any) -> None:
        config = uvicorn.Config(
            app,
            loop="none",
            ws=cast("type[asyncio.Protocol]", _websocket_protocol),
            ws_max_size=_LARGEST_FRAME,
            ws_ping_interval=_HEARTBEAT,
            ws_ping_timeout=_HEARTBEAT,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            date_header=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=_LAST_ANSWERS,
        )
        super().__init__(config)
        self.ready, self._stop = asyncio.Event(), asyncio.Event()

    def stop(self) -> None:
        """Finish what is under way, then end."""
        self._stop.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn would end the process by the signal it got; ending is the affair of `server.run`.
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        await self._stop.wait()
