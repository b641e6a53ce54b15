"""The web server: uvicorn with the settings of this service."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from agentbay._wire.frames import MAX_REQUEST_FRAME_BYTES
from agentbay.local.http.connection_limits import AnonymousConnections, HttpProtocol
from agentbay.local.http.uvicorn_parts import Config, Server
from agentbay.local.options import Options

_KEEP_ALIVE_SECONDS = 75  # clients close an idle connection before that

_PING_INTERVAL_SECONDS = 20.0  # between pings to WebSocket clients, and the time that a pong may take
_SHUTDOWN_TIMEOUT_SECONDS = 5  # for answers still under way at the end
_SHUTDOWN_POLL_SECONDS = 0.005
_logger = logging.getLogger(__name__)


def _websocket_protocol(**options: Any) -> asyncio.Protocol:
    from agentbay.local.http.web_server_websocket import WebSocketProtocol

    return WebSocketProtocol(**options)


class WebServer(Server):
    """A uvicorn server that handles no signals and does not wake up while idle."""

    def __init__(self, app: Any, options: Options) -> None:
        config = Config(
            app,
            loop="none",
            http=partial(HttpProtocol, connections=AnonymousConnections()),  # type: ignore[arg-type]
            ssl_certfile=options.tls_cert,
            ssl_keyfile=options.tls_key,
            ws=cast("type[asyncio.Protocol]", _websocket_protocol),
            ws_max_size=MAX_REQUEST_FRAME_BYTES,
            ws_ping_interval=_PING_INTERVAL_SECONDS,
            ws_ping_timeout=_PING_INTERVAL_SECONDS,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            date_header=False,
            server_header=False,
            proxy_headers=False,  # X-Forwarded-* of a client must not replace the address it came from
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
        super().__init__(config)
        self.ready, self._stop = asyncio.Event(), asyncio.Event()

    def stop(self) -> None:
        """Finish the answers under way, then end."""
        self._stop.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn would end the process by the signal it got; `server.run` handles signals.
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        # uvicorn's own loop wakes up ten times a second.
        await self._stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn's own shutdown polls ten times a second, and first waits for a tenth of a second.
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(_SHUTDOWN_TIMEOUT_SECONDS):
                while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110 - uvicorn tells nobody
                    await asyncio.sleep(_SHUTDOWN_POLL_SECONDS)
                for server in self.servers:
                    await server.wait_closed()
        except TimeoutError:
            _logger.warning("%d answers were not finished at the end", len(self.server_state.tasks))
            for task in self.server_state.tasks:
                task.cancel()
