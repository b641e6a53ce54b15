"""The service on its socket: sessions, application and web server put together."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn

from agentbay.local.app import Application
from agentbay.local.runtime import Runtime
from agentbay.local.sandbox.host import SandboxHost
from agentbay.local.sessions import SessionTable
from agentbay.local.state_dir import StateDirectory

_KEEP_ALIVE = 75  # seconds; clients let go of an idle connection before that
_LAST_ANSWERS = 5  # seconds for answers still under way at the end


@asynccontextmanager
async def serving(
    host: SandboxHost, state_dir: StateDirectory, listener: socket.socket, *, key: str, links: bool
) -> AsyncIterator[asyncio.Task[None]]:
    """Serve on `listener`; at the end all sessions are ended first. Yields a task that ends if the server does."""
    sessions = SessionTable(host, state_dir)
    address, port = listener.getsockname()
    server = _WebServer(Application(Runtime(sessions, f"{address}:{port}", links), key))
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


class _WebServer(uvicorn.Server):
    """A uvicorn server that leaves signals alone and, when there is nothing to do, does nothing."""

    def __init__(self, app: Any) -> None:
        config = uvicorn.Config(
            app,
            loop="none",
            ws="none",
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
