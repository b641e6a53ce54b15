"""The browser process of one session."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from agentbay.local.browser.arguments import AHEAD_DIRECTORY, PROFILE_DIRECTORY, browser_arguments, profile_flag
from agentbay.local.browser.engines import INSTALL_HINT, MOUNT_POINT, BrowserEngine, find_engine
from agentbay.local.browser.errors import DevToolsError
from agentbay.local.browser.recorder import BrowserRecorder
from agentbay.local.sandbox.service.futures import retrieve_exception
from agentbay.local.sandbox.service.manager import BindMount, Completed, FileOperationFailed, Sandbox
from agentbay.local.sandbox.service.mounting import MountFailed, mount_into_running

_PORT_FILE = "DevToolsActivePort"  # in the directory of the profile
_START_TIMEOUT_SECONDS = 30.0
_POLL_SECONDS = 0.02
_STOP_TIMEOUT_SECONDS = 5.0
_OUTPUT_BYTES = 64 << 10
# The file lies in the session, whose code can write anything into it.
_PORT_FILE_CONTENT = re.compile(rb"([1-9][0-9]{0,4})\n(/devtools/browser/[0-9A-Za-z-]{1,64})\n?")
_LAST_PORT = 65535
# A profile that was copied from another session still has that session's lock and port.
_PREPARE = f'mkdir -p "$1" && rm -f "$1"/Singleton* "$1"/{_PORT_FILE}'
# The browser still uses the old name, which becomes a link. The directory gets the new name, since contexts follow no
# links.
_ADOPT = f"""[ ! -e {PROFILE_DIRECTORY} ] && mv -T {AHEAD_DIRECTORY} {PROFILE_DIRECTORY} &&
    ln -s {PROFILE_DIRECTORY} {AHEAD_DIRECTORY}"""
_LIST_EXTENSIONS = 'cd "$1" 2>/dev/null && for d in */; do [ -f "$d/manifest.json" ] && echo "$1/${d%/}"; done; true'
_logger = logging.getLogger(__name__)


class BrowserFailed(Exception):
    """The browser could not be started, for this reason."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class SessionBrowser:
    """Starts a session's browser on demand, and again after a crash.

    It may have been started ahead, before a client asks for it: then it counts as not started until a client does.

    Args:
        on_used: Called when a client has started it.

    Attributes:
        port: The port of its DevTools protocol, inside the session; 0 while it does not run.
        path: The path of that WebSocket, with the secret that Chromium makes for each start.
        was_recorded: Whether there is a recording of its pages.
        current_page: The DevTools target that was used last by the service itself, or "".
    """

    def __init__(self, on_used: Callable[[], None] = lambda: None) -> None:
        self.port, self.path = 0, ""
        self.current_page = ""
        self._on_used = on_used
        self._option: Mapping[str, Any] = {}
        self._is_ahead = False
        self._arguments: list[str] = []
        self._directory = PROFILE_DIRECTORY
        self._process: asyncio.Task[Completed] | None = None
        self._start_lock = asyncio.Lock()
        self._is_mounted = False
        self._proxy: dict[str, str] | None = None
        self.was_recorded = False
        self._recorder: BrowserRecorder | None = None

    @property
    def is_running(self) -> bool:
        """Whether a client has started it, and the process lives."""
        return self._process is not None and not self._process.done() and not self._is_ahead

    @property
    def was_started(self) -> bool:
        """Whether a client has started it, and not stopped it since."""
        return self._process is not None and not self._is_ahead

    async def start_ahead(self, sandbox: Sandbox) -> None:
        """Start the browser before a client asks for it, with the default options.

        Raises:
            BrowserFailed: There is no browser on this machine, or it did not come up.
            SandboxGone: The sandbox ended first.
        """
        self._is_ahead = True
        await self._launch(sandbox, _require_engine(None), {}, AHEAD_DIRECTORY)

    async def start(self, sandbox: Sandbox, option: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        """Start the browser, unless it runs.

        Raises:
            BrowserFailed: There is no browser on this machine, or it did not come up.
            SandboxGone: The sandbox ended first.
        """
        async with self._start_lock:
            if self.is_running:
                return
            engine = _require_engine(option.get("browserType"))
            self._option = option
            if not self._is_ahead or not await self._adopt(sandbox, engine, environment):
                await self._launch(sandbox, engine, environment, PROFILE_DIRECTORY)
            self._on_used()

    async def _adopt(self, sandbox: Sandbox, engine: BrowserEngine, environment: Mapping[str, str]) -> bool:
        """Use the browser that was started ahead, if its options fit.

        Return False, and end it, if they do not.
        """
        assert self._process is not None
        arguments = await self._choose_arguments(sandbox, engine, environment)
        fits = not self._process.done() and not environment and arguments == self._arguments
        if fits and not (await _run(sandbox, ["sh", "-c", _ADOPT])).exit_code:
            self._is_ahead = False
            await self._record(sandbox)
            return True
        self._process.cancel()  # a cancelled command is killed with all that it has started
        await asyncio.wait([self._process])
        await self._kill_remaining(sandbox)
        self._process, self._is_ahead = None, False
        await _run(sandbox, ["rm", "-rf", AHEAD_DIRECTORY])
        return False

    async def restart_if_crashed(self, sandbox: Sandbox, environment: Mapping[str, str]) -> None:
        """Restart the browser with the same options if it has ended.

        Raises:
            BrowserFailed: It did not come up.
        """
        if self._process is not None and not self._main_pids(sandbox):
            await asyncio.wait([self._process], timeout=_STOP_TIMEOUT_SECONDS)  # it ends once its output is read
        if self.was_started and not self.is_running:
            _logger.warning("the browser of a session has ended by itself, and is started again")
            await self.start(sandbox, self._option, environment)

    async def stop(self, sandbox: Sandbox) -> None:
        """End the browser, and wait for its profile and processes."""
        process, self._process = self._process, None
        port, path, self.port, self.path = self.port, self.path, 0, ""
        if self._recorder is not None:
            await self._recorder.close()
            self._recorder = None
        if process is None or process.done():
            return
        if not await _close(sandbox, port, path):
            for pid in self._main_pids(sandbox):
                sandbox.signal(pid, signal.SIGTERM)
        await asyncio.wait([process], timeout=_STOP_TIMEOUT_SECONDS)
        process.cancel()  # a cancelled command is killed with all that it has started
        await asyncio.wait([process])
        await self._kill_remaining(sandbox)

    async def _kill_remaining(self, sandbox: Sandbox) -> None:
        """Kill the browser processes that outlive the main one."""
        # A process in an uninterruptible wait cannot be killed; it dies with the session.
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_TIMEOUT_SECONDS):
                while left := [each.pid for each in sandbox.list_processes() if self._directory in each.command]:
                    for pid in left:
                        sandbox.signal(pid, signal.SIGKILL)
                    await asyncio.sleep(_POLL_SECONDS)

    def _main_pids(self, sandbox: Sandbox) -> list[int]:
        """Return the browser's own processes, without those of its pages."""
        return [
            running.pid
            for running in sandbox.list_processes()
            if profile_flag(self._directory) in running.command and "--type=" not in running.command
        ]

    async def _launch(
        self, sandbox: Sandbox, engine: BrowserEngine, environment: Mapping[str, str], directory: str
    ) -> None:
        self._directory = directory
        prepared = await _run(sandbox, ["sh", "-c", _PREPARE, "sh", directory])
        if prepared.exit_code:
            raise BrowserFailed(f"The browser has no place for its profile: {_tail(prepared)}", "BrowserFailed.Local")
        self._arguments = await self._choose_arguments(sandbox, engine, environment)
        argv = [*self._arguments, profile_flag(directory)]
        self._process = asyncio.create_task(sandbox.run(argv, env=dict(environment), output_limit=_OUTPUT_BYTES))
        self._process.add_done_callback(retrieve_exception)
        try:
            async with asyncio.timeout(_START_TIMEOUT_SECONDS):
                self.port, self.path = await self._wait_for_port(sandbox)
        except TimeoutError as error:
            await self.stop(sandbox)
            raise BrowserFailed("The browser did not start in time.", "BrowserFailed.Local") from error
        except BaseException:
            await self.stop(sandbox)
            raise
        await self._record(sandbox)

    async def _record(self, sandbox: Sandbox) -> None:
        """Start to record the pages, if the client asked for that."""
        if not self._option.get("enableRecord"):
            return
        self.was_recorded = True
        try:
            self._recorder = await BrowserRecorder.start(sandbox, self.port, self.path)
        except (DevToolsError, FileOperationFailed) as error:
            await self.stop(sandbox)
            raise BrowserFailed(f"The browser cannot be recorded: {error}", "BrowserFailed.Local") from error
        except BaseException:
            await self.stop(sandbox)
            raise

    async def _choose_arguments(
        self, sandbox: Sandbox, engine: BrowserEngine, environment: Mapping[str, str]
    ) -> list[str]:
        if self._proxy is None:  # it does not change while the sandbox lives
            self._proxy = await _proxy_variable(sandbox)
        inside = {**self._proxy, **environment}
        extensions = await self._list_extensions(sandbox)
        return browser_arguments(await self._show(sandbox, engine), self._option, inside, extensions)

    async def _show(self, sandbox: Sandbox, engine: BrowserEngine) -> BrowserEngine:
        """Return the browser as the session sees it, mounted if need be."""
        if engine.directory is None or not sandbox.has_namespaces:
            return engine
        if not self._is_mounted:
            try:
                await mount_into_running(sandbox, BindMount(engine.directory, MOUNT_POINT, read_only=True))
            except MountFailed as error:
                raise BrowserFailed(str(error), "BrowserFailed.Local") from error
            self._is_mounted = True
        return engine._replace(path=f"{MOUNT_POINT}/{os.path.basename(engine.path)}")

    async def _wait_for_port(self, sandbox: Sandbox) -> tuple[int, str]:
        """Wait until the browser has written where it listens, and return port and path."""
        while True:
            if self._process is None or self._process.done():
                ended = self._process.result() if self._process is not None else None
                raise BrowserFailed(f"The browser has ended at its start: {_tail(ended)}", "BrowserFailed.Local")
            found = await _run(sandbox, ["cat", f"{self._directory}/{_PORT_FILE}"])
            # The file may be missing still, or only partly written.
            match = _PORT_FILE_CONTENT.fullmatch(found.stdout)
            if match and int(match[1]) <= _LAST_PORT:
                return int(match[1]), match[2].decode()
            await asyncio.sleep(_POLL_SECONDS)

    async def _list_extensions(self, sandbox: Sandbox) -> list[str]:
        directory = self._option.get("extensionPath")
        if not isinstance(directory, str) or not directory:
            return []
        # The path is an argument and not part of the script, which the shell would execute (injection).
        argv = ["sh", "-c", _LIST_EXTENSIONS, "sh", directory.rstrip("/")]
        listed = await _run(sandbox, argv)
        return listed.stdout.decode("utf-8", "surrogateescape").splitlines()


def _require_engine(kind: str | None) -> BrowserEngine:
    engine = find_engine(kind)
    if engine is None:
        raise BrowserFailed(
            f"This machine has no {kind or 'browser'} that sessions can see. Install one: {INSTALL_HINT}",
            "BrowserNotInstalled.Local",
        )
    return engine


async def _close(sandbox: Sandbox, port: int, path: str) -> bool:
    """Ask the browser to end, and return whether it accepted.

    It saves its cookies only then, and not when a signal ends it.
    """
    from agentbay.local.browser.devtools import DevTools  # its library takes as long to import as a start

    try:
        devtools = await DevTools.open(sandbox, port, path, lambda *_: None)
    except DevToolsError:
        # It does not listen any more, so it cannot be asked.
        return False
    try:
        await devtools.call("Browser.close", timeout=_STOP_TIMEOUT_SECONDS)
    except DevToolsError:
        return False
    finally:
        await devtools.close()
    return True


async def _run(sandbox: Sandbox, argv: list[str]) -> Completed:
    return await sandbox.run(argv, timeout=_START_TIMEOUT_SECONDS, output_limit=_OUTPUT_BYTES)


async def _proxy_variable(sandbox: Sandbox) -> dict[str, str]:
    """Return the variable that names the egress proxy, if there is one."""
    shown = await _run(sandbox, ["printenv", "HTTPS_PROXY"])
    proxy = shown.stdout.decode("utf-8", "replace").strip()
    return {"HTTPS_PROXY": proxy} if proxy else {}


def _tail(ended: Completed | None) -> str:
    if ended is None:
        return "it was stopped"
    text = ended.stderr.decode("utf-8", "replace").strip()
    return text[-500:] or f"exit code {ended.exit_code}"
