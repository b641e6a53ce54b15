"""Interactive terminals (PTYs) in a session."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from .._arguments import checked_arguments
from .._concurrency import async_start_background
from .._transport.command import check_environment
from .._transport.command_line import accepts_command_fields, make_command_line, silent_terminal_command
from .._transport.deadline import Deadline, operation_deadline, time_limit
from .._wire.converter import unstructure
from .._wire.pty import PTY_TARGET, PtyAnswer, PtyCreate, PtyRef
from .._wire.tools import Shell
from ..errors import AgentBayError, InvalidArgumentError, PtyError, PtySessionNotFoundError, ToolError
from ..models.pty import PtySession
from .pty_handle import AsyncPtyHandle, check_size, parse_answer
from .service import AsyncBaseService
from .ws_client import CALL_TIMEOUT_SECONDS

_DEFAULT_TERMINAL_ENVIRONMENT = {"TERM": "xterm-256color", "LANG": "en_US.UTF-8"}


@checked_arguments("cwd", cols=None, rows=None, envs=None)
class AsyncPty(AsyncBaseService):
    """Open terminals in a session, and find open ones."""

    async def create(
        self,
        cols: int = 80,
        rows: int = 24,
        cwd: str | None = None,
        envs: dict[str, str] | None = None,
        shell: str | None = None,
        on_data: Callable[[bytes], object] | None = None,
        timeout_s: float | None = None,
        *,
        argv: Sequence[str] | None = None,
        echo: bool = True,
        timeout: float | None = None,
    ) -> AsyncPtyHandle:
        """Start a program in a new terminal.

        Args:
            cols: Width in characters, 1 to 500.
            rows: Height in characters, 1 to 500.
            cwd: Directory to start in; None is the session's home.
            envs: Environment variables beside the session's own; `TERM` and `LANG` have useful defaults.
            shell: What to run; None is the session's shell.
            on_data: Called with each piece of output, from the first byte on, one call after the other. It may use the
                session; an exception of it is logged and ends nothing. Without it, iterate over the handle.
            timeout_s: Seconds it may take; None is 30.
            argv: A program and its arguments to run, instead of `shell`; nothing in them is expanded.
            echo: Whether the terminal shows what is typed. Programs that drive it seldom want that.
            timeout: The same; takes precedence over `timeout_s`.

        Raises:
            InvalidArgumentError: There is both `argv` and `shell`, or no program in `argv`.
            PtyError: The size is impossible, or the service refuses.
            TransportError: There is no connection, or no answer in time.

        Wire: WebSocket PTY_SERVER/pty.create
        """
        check_size(cols, rows)
        if argv is not None and shell is not None:
            raise InvalidArgumentError("argv and shell name two programs: give one of them")
        program = shell if argv is None else make_command_line(argv, None, merge_stderr=False).text
        # A service whose commands are command lines alone knows no terminals without echo either.
        knows_echo = accepts_command_fields(self.session.mcpTools, Shell)
        wanted = PtyCreate(
            cols=cols,
            rows=rows,
            cwd=cwd,
            envs={**_DEFAULT_TERMINAL_ENVIRONMENT, **(check_environment(envs) or {})},
            shell=program if echo or knows_echo else silent_terminal_command(program),
            listening=True,
            echo=False if not echo and knows_echo else None,
        )
        limit = timeout_s if timeout is None else timeout
        deadline = Deadline(CALL_TIMEOUT_SECONDS if limit is None else limit)
        return await self._attach("pty.create", wanted, AsyncPtyHandle("", self, on_data), deadline)

    async def connect(
        self, pty_session_id: str, on_data: Callable[[bytes], object] | None = None, *, timeout: float | None = None
    ) -> AsyncPtyHandle:
        """Attach to an open terminal, which any client may have opened.

        Its recent output, where the service keeps it, comes first.

        Args:
            pty_session_id: Its id, as from `list()`.
            on_data: As for `create()`.
            timeout: Seconds it may take; None is 30.

        Raises:
            PtySessionNotFoundError: There is no such terminal.
            PtyError: The service refuses.
            TransportError: There is no connection, or no answer in time.

        Wire: WebSocket PTY_SERVER/pty.connect
        """
        with time_limit(timeout):
            wanted = PtyRef(pty_session_id=pty_session_id, listening=True)
            handle = AsyncPtyHandle(pty_session_id, self, on_data)
            return await self._attach("pty.connect", wanted, handle, operation_deadline(CALL_TIMEOUT_SECONDS))

    async def list(self, *, timeout: float | None = None) -> builtins.list[PtySession]:
        """List the session's terminals in the order of creation.

        Args:
            timeout: Seconds it may take; None is 30.

        Raises:
            PtyError: The service refuses.
            TransportError: There is no connection, or no answer in time.

        Wire: WebSocket PTY_SERVER/pty.list
        """
        with time_limit(timeout):
            answer = await self._call("pty.list", {})
            if answer.pty_sessions is None:
                return [PtySession(found, 0, 0, "running") for found in answer.pty_session_ids]
            return [
                PtySession(found.pty_session_id, found.cols, found.rows, found.status, found.exit_code)
                for found in answer.pty_sessions
            ]

    async def kill(self, pty_session_id: str, *, timeout: float | None = None) -> None:
        """Kill the program in a terminal and its child processes.

        Args:
            timeout: Seconds it may take; None is 30.

        Raises:
            PtySessionNotFoundError: There is no such terminal.
            PtyError: The service refuses.
            TransportError: There is no connection, or no answer in time.

        Wire: WebSocket PTY_SERVER/pty.kill
        """
        with time_limit(timeout):
            await self._call("pty.kill", PtyRef(pty_session_id=pty_session_id))

    async def _attach(self, method: str, wanted: object, handle: AsyncPtyHandle, deadline: Deadline) -> AsyncPtyHandle:
        websocket = await self.session.ws.websocket()
        # Before the request, because the program's first output can be pushed before the answer arrives.
        handle._subscribe(websocket)
        is_new = not handle._id
        try:
            await self._call(method, wanted, deadline, handle._on_attached, self._kill_late if is_new else None)
        except BaseException:
            handle.disconnect()
            if is_new and handle._id:
                self._kill_in_background(handle._id)
            raise
        return handle

    def _kill_late(self, answer: dict[str, Any]) -> None:
        """Kill the program of a terminal that nobody waits for any more."""
        self._kill_in_background(parse_answer(answer).pty_session_id)

    def _kill_in_background(self, pty_session_id: str) -> None:
        async def kill() -> None:
            with suppress(AgentBayError):  # it has ended already
                await self.kill(pty_session_id)

        async_start_background(kill)

    async def _call(
        self,
        method: str,
        params: object,
        deadline: Deadline | None = None,
        on_answer: Callable[[dict[str, Any]], None] | None = None,
        on_late_answer: Callable[[dict[str, Any]], None] | None = None,
    ) -> PtyAnswer:
        websocket = await self.session.ws.websocket()
        data = {"method": method, "params": unstructure(params)}
        try:
            return parse_answer(
                await websocket.call(
                    PTY_TARGET, data, deadline or operation_deadline(CALL_TIMEOUT_SECONDS), on_answer, on_late_answer
                )
            )
        except ToolError as error:
            missing = "not found" in error.message.lower()
            raise (PtySessionNotFoundError if missing else PtyError)(error.message, **error.context()) from error

    async def _send(self, method: str, params: object) -> None:
        websocket = await self.session.ws.websocket()
        await websocket.send(PTY_TARGET, {"method": method, "params": unstructure(params)})
