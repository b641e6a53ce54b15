"""The desktop of one session."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import signal
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from agentbay.local.desktop.connection import (
    LOADER,
    DesktopConnection,
    DesktopFailed,
    Reply,
    module_codes,
    open_connection,
)
from agentbay.local.desktop.programs import VIEWER_INSTALL_HINT, find_programs, find_viewer, missing_message
from agentbay.local.sandbox.service.manager import Sandbox

SCREEN_SIZE = (1280, 800)  # pixels
AUTHORITY_PATH = "/tmp/.agentbay-desktop/Xauthority"  # the cookie of the X server
_START_TIMEOUT_SECONDS = 60.0
_REQUEST_TIMEOUT_SECONDS = 60.0
_LAST_PORT = 65535
_READY = re.compile(r"([0-9]{1,10}) ([0-9]{1,10})")  # the process, and the number of the display
_NOT_INSTALLED = "DesktopNotInstalled.Local"  # the code of these errors
_PAGE = Path(__file__).with_name("page.html")
_logger = logging.getLogger(__name__)


class SessionDesktop:
    """Starts a session's desktop on demand, and again after a crash.

    Requests are carried out one at a time.

    Args:
        on_used: Called when a client begins to use it.
    """

    def __init__(self, on_used: Callable[[], None] = lambda: None) -> None:
        self._on_used, self._was_used = on_used, False
        self._connection: DesktopConnection | None = None
        self._leader = 0  # the process that drives the desktop: its pid inside the sandbox
        self._lock = asyncio.Lock()
        # Other sessions reach the page's port with the host's network, so its path is a secret.
        self._view_prefix = f"/{secrets.token_urlsafe(16)}/"
        self.environment: dict[str, str] = {}

    @property
    def was_started(self) -> bool:
        """Whether this session has used its desktop."""
        return self._was_used

    async def request(
        self, sandbox: Sandbox, environment: Mapping[str, str], do: str, arguments: Mapping[str, object]
    ) -> Reply:
        """Carry out a request, and start the desktop if it is not running.

        Args:
            environment: Variables of the session.

        Raises:
            DesktopFailed: There is no desktop on this machine, or it has ended.
            SandboxGone: The sandbox ended first.
        """
        exchange = asyncio.ensure_future(self._use(sandbox, environment, {**arguments, "do": do}))
        # A client that disconnects must not leave a reply unread, which the next request would take for its own.
        return await asyncio.shield(exchange)

    async def start_ahead(self, sandbox: Sandbox) -> None:
        """Start the desktop before a client uses it.

        Raises:
            DesktopFailed: There is no desktop on this machine, or it has ended.
            SandboxGone: The sandbox ended first.
        """
        await self._exchange(sandbox, {}, {"do": "position"})

    async def start(self, sandbox: Sandbox, environment: Mapping[str, str]) -> None:
        """Start the desktop, unless it runs."""
        await self.request(sandbox, environment, "position", {})

    def close(self) -> None:
        """Close the connection to a desktop whose sandbox has ended."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    async def open_view(self, sandbox: Sandbox, environment: Mapping[str, str]) -> tuple[int, str]:
        """Return port and path of a web page that shows the desktop.

        Raises:
            DesktopFailed: There is no desktop on this machine, or it has ended.
            SandboxGone: The sandbox ended first.
        """
        arguments = {"prefix": self._view_prefix, "files": view_files()}
        reply = await self.request(sandbox, environment, "open_view", arguments)
        port = reply.number
        if reply.refused or not 0 < port <= _LAST_PORT:
            raise DesktopFailed(f"The desktop cannot be shown: {reply.text[:1000]}")
        return port, self._view_prefix

    async def _use(self, sandbox: Sandbox, environment: Mapping[str, str], message: Mapping[str, object]) -> Reply:
        reply = await self._exchange(sandbox, environment, message)
        if not self._was_used:
            self._was_used = True
            self._on_used()
        return reply

    async def _exchange(self, sandbox: Sandbox, environment: Mapping[str, str], message: Mapping[str, object]) -> Reply:
        async with self._lock:
            connection = self._connection or await self._start(sandbox, environment)
            try:
                return await self._ask(sandbox, connection, message)
            except (OSError, EOFError) as error:
                _logger.warning("the desktop of a session has ended by itself")
                self._discard(sandbox)
                # Not repeated: half of the request may have been carried out.
                raise DesktopFailed(
                    "The desktop has ended, and its windows with it. The next call starts a new one."
                ) from error

    async def _ask(self, sandbox: Sandbox, connection: DesktopConnection, message: Mapping[str, object]) -> Reply:
        async def exchange() -> Reply:
            await connection.send(message)
            return await connection.receive()

        waiting = asyncio.ensure_future(exchange())
        try:
            if not await sandbox.clock.ends_within(waiting, _REQUEST_TIMEOUT_SECONDS):
                raise EOFError
            return waiting.result()
        finally:
            waiting.cancel()

    async def _start(self, sandbox: Sandbox, environment: Mapping[str, str]) -> DesktopConnection:
        programs = find_programs()
        if missing := missing_message():
            raise DesktopFailed(missing, _NOT_INSTALLED)
        assert programs is not None
        if not sandbox.has_namespaces:
            raise DesktopFailed(
                "A desktop needs a /tmp of its own, which sessions have only with --isolation namespaces.",
                "DesktopNotSupported.Local",
            )
        width, height = map(str, SCREEN_SIZE)
        argv = [sys.executable, "-I", "-X", "utf8", "-c", LOADER, *programs, width, height]
        connection = open_connection(sandbox, argv, environment)
        try:
            ready = await self._ask(sandbox, connection, module_codes())
        except (OSError, EOFError) as error:
            connection.close()
            raise DesktopFailed("The desktop did not start.") from error
        except BaseException:
            connection.close()
            raise
        if ready.refused:
            connection.close()
            raise DesktopFailed(f"The desktop did not start. {ready.text[:1000]}")
        match = _READY.fullmatch(ready.text)
        if match is None:
            connection.close()
            raise DesktopFailed("The desktop did not start.")
        self._leader = int(match[1])
        self.environment = {"DISPLAY": f":{match[2]}", "XAUTHORITY": AUTHORITY_PATH}
        self._connection = connection
        return connection

    def _discard(self, sandbox: Sandbox) -> None:
        """End what is left of a desktop that has failed."""
        self.close()
        if self._leader:
            sandbox.signal(self._leader, signal.SIGKILL)


@cache
def view_files() -> dict[str, str]:
    """Return the files of the page that shows a desktop, by path.

    Raises:
        DesktopFailed: This machine has no noVNC.
    """
    viewer = find_viewer()
    if viewer is None:
        missing = f"This machine has no noVNC, which shows desktops live. Install it: {VIEWER_INSTALL_HINT}"
        raise DesktopFailed(missing, _NOT_INSTALLED)
    scripts = [script for part in ("core", "vendor") for script in (viewer / part).rglob("*.js")]
    files = {f"novnc/{script.relative_to(viewer).as_posix()}": script.read_text("utf-8") for script in scripts}
    return {"page.html": _PAGE.read_text("utf-8"), **files}
