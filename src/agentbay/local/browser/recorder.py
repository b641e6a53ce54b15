"""Records what the pages of a browser show, with a player."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentbay.local.browser.errors import DevToolsError
from agentbay.local.sandbox.service.manager import FileOperationFailed, Sandbox, SandboxError, SandboxGone
from agentbay.local.sandbox.shared.file_protocol import MakeDirectory, WriteFile

if TYPE_CHECKING:
    from agentbay.local.browser.devtools import DevTools

RECORD_DIRECTORY = "/home/wuying/record"  # where the cloud keeps it, too
_MAX_BYTES = 1 << 29
_FRAME_SECONDS = 0.2  # between two frames of a page
# Code of the session can take the browser's place, and report pages and frames without end.
_MAX_PAGES, _MAX_FRAME_BYTES, _MAX_WAITING_BYTES = 1000, 4 << 20, 32 << 20
_SCREENCAST: dict[str, Any] = {"format": "jpeg", "quality": 50, "maxWidth": 1280, "maxHeight": 1280}
_logger = logging.getLogger(__name__)


class BrowserRecorder:
    """Writes each change of a page as a line of a script.

    The player, a page beside it, loads the script. A page that is opened from a folder may load scripts, but fetch no
    data.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._devtools: DevTools | None = None
        self._pages: dict[str, int] = {}  # number by CDP session
        self._written, self._write_lock = 0, asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting_bytes = 0  # of frames that are not written yet

    @classmethod
    async def start(cls, sandbox: Sandbox, port: int, path: str) -> BrowserRecorder:
        """Begin to record all pages, those that are opened later too.

        Raises:
            DevToolsError: The browser does not answer.
            SandboxError: The files cannot be written.
        """
        from agentbay.local.browser.devtools import DevTools  # its library takes as long to import as a start

        recorder = cls(sandbox)
        await sandbox.run_file_operation(MakeDirectory(RECORD_DIRECTORY))
        player = Path(__file__).with_name("player.html").read_bytes()
        await sandbox.run_file_operation(WriteFile(f"{RECORD_DIRECTORY}/player.html"), input=player)
        recorder._devtools = await DevTools.open(sandbox, port, path, recorder._on_event)
        await recorder._devtools.call("Target.setDiscoverTargets", discover=True)
        return recorder

    async def close(self) -> None:
        """Stop recording."""
        for task in self._tasks:
            task.cancel()
        if self._devtools is not None:
            await self._devtools.close()

    def _on_event(self, method: str, params: dict[str, Any], session: str) -> None:
        if method == "Target.targetCreated":
            info = params.get("targetInfo")
            if isinstance(info, dict) and info.get("type") == "page" and len(self._tasks) < _MAX_PAGES:
                self._spawn(self._follow(str(info.get("targetId"))))
        elif method == "Page.screencastFrame" and session in self._pages and len(self._tasks) < _MAX_PAGES:
            # The browser sends the next frame of a page only after this one was acknowledged.
            self._spawn(self._keep(session, params))

    async def _follow(self, target: str) -> None:
        assert self._devtools is not None
        attached = await self._devtools.call("Target.attachToTarget", targetId=target, flatten=True)
        session = str(attached.get("sessionId"))
        if len(self._pages) >= _MAX_PAGES:
            return
        self._pages[session] = len(self._pages) + 1
        await self._devtools.call("Page.startScreencast", session, **_SCREENCAST)

    async def _keep(self, session: str, params: dict[str, Any]) -> None:
        assert self._devtools is not None
        data = params.get("data")
        if not isinstance(data, str) or len(data) > _MAX_FRAME_BYTES:
            return
        line = f"frame({json.dumps([time.time(), self._pages[session], data])});\n".encode()
        if self._written + len(line) > _MAX_BYTES or self._waiting_bytes + len(line) > _MAX_WAITING_BYTES:
            return
        self._written += len(line)
        self._waiting_bytes += len(line)
        try:
            async with self._write_lock:  # frames of several pages would mix
                request = WriteFile(f"{RECORD_DIRECTORY}/frames.js", append=True)
                await self._sandbox.run_file_operation(request, input=line)
        finally:
            self._waiting_bytes -= len(line)
        await asyncio.sleep(_FRAME_SECONDS)
        await self._devtools.call("Page.screencastFrameAck", session, sessionId=params.get("sessionId"))

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(_run_until_the_browser_ends(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _run_until_the_browser_ends(work: Any) -> None:
    try:
        await work
    except FileOperationFailed as error:
        _logger.warning("the record of a browser ends: %s", error.strerror)
    except (DevToolsError, SandboxGone):  # a page was closed, or the browser or the session has ended
        pass
    except SandboxError as error:  # such as a session that is paused at this moment
        _logger.debug("a frame of a record is left out: %s", error)
