"""Shell commands in a session."""

from __future__ import annotations

import contextlib
import math
import secrets

from .._arguments import checked_arguments
from .._concurrency import async_shield
from .._transport.command import DEFAULT_COMMAND_TIMEOUT_MS, check_environment, read_command_result
from .._transport.processes import ProcessEntry, check_id
from .._wire.tools import Shell
from ..errors import AgentBayError, ReplyError, TransportError
from ..models.command import CommandResult
from .error_boundary import folded
from .process import AsyncProcess, process_control
from .service import AsyncBaseService

_COMMAND_REPLY_MARGIN_SECONDS = 10.0  # that the answer may take longer than the command


@checked_arguments("cwd", envs=None)
class AsyncCommand(AsyncBaseService):
    """Run shell commands in a session.

    They run as the session's user and start in its home directory.
    """

    @folded(CommandResult, exit_code=-1)
    async def execute_command(
        self,
        command: str,
        timeout_ms: float | None = DEFAULT_COMMAND_TIMEOUT_MS,
        cwd: str | None = None,
        envs: dict[str, str] | None = None,
    ) -> CommandResult:
        """Run a command with the session's shell and wait for its end.

        Args:
            command: What to run, as typed at a prompt.
            timeout_ms: Milliseconds until the command and everything it started is killed; None is the default.
            cwd: Directory to run it in; None is the session's home.
            envs: Environment variables beside the session's own.

        Returns:
            Exit code and output. A non-zero exit code is an answer: `success` is False and nothing is raised. If time
            ran out, `exit_code` is -1 and `exception` is a `CommandTimeoutError` that carries the output so far; a
            strict client raises it. `truncated` says that the service dropped output above its limit.

        Raises:
            ValueError: If `envs` holds anything but strings.

        Wire: CallMcpTool/shell
        """
        return await self._execute(command, timeout_ms, cwd, envs)

    async def _execute(
        self, command: str, timeout_ms: float | None, cwd: str | None, envs: dict[str, str] | None
    ) -> CommandResult:
        # The wire carries whole milliseconds. Rounding down could make 0 of a fraction.
        limit = DEFAULT_COMMAND_TIMEOUT_MS if timeout_ms is None else math.ceil(timeout_ms)
        call = Shell(command=command, timeout_ms=limit, cwd=cwd, envs=check_environment(envs))
        # The session kills the command first, so that its output so far still arrives here.
        return read_command_result(
            await self.session._run_tool(
                call, timeout=limit / 1000 + _COMMAND_REPLY_MARGIN_SECONDS, extend_while_paused=True
            )
        )

    run = execute_command
    exec = execute_command

    async def start(self, command: str, cwd: str | None = None, envs: dict[str, str] | None = None) -> AsyncProcess:
        """Start a command in the background.

        If the call is cancelled or interrupted, nothing of the command is left.

        Args:
            command: What to run, as typed at a prompt.
            cwd: Directory to run it in; None is the session's home.
            envs: Environment variables beside the session's own.

        Raises:
            ValueError: If `envs` holds anything but strings.
            CommandError: It could not be started.

        Wire: CallMcpTool/start_process, CallMcpTool/shell
        """
        return await self._start(command, cwd, check_environment(envs), command)

    async def _start(self, command: str, cwd: str | None, envs: dict[str, str] | None, label: str) -> AsyncProcess:
        """Start a command that lists show as `label`."""
        # Chosen here and not in the session, so that the same start can be sent again.
        process_id = secrets.token_hex(8)
        control = process_control(self.session)
        try:
            try:
                pid = await control.start(process_id, command, cwd, envs, label)
            except TransportError:  # perhaps it was started: the id makes starting idempotent
                pid = await control.start(process_id, command, cwd, envs, label)
        except BaseException as error:
            # It may have been started all the same, and nobody would know its id.
            if not isinstance(error, AgentBayError) or isinstance(error, (ReplyError, TransportError)):
                await async_shield(lambda: self._cancel_start(process_id))
            raise
        return AsyncProcess(self.session, process_id, pid, command=label)

    async def _cancel_start(self, process_id: str) -> None:
        with contextlib.suppress(AgentBayError):  # what happened before is what the caller must know
            await process_control(self.session).cancel(process_id)

    async def attach(self, process_id: str) -> AsyncProcess:
        """Find a background process that any client started before.

        Args:
            process_id: Its `id`.

        Raises:
            ValueError: If it is not a valid id.
            CommandError: If the session has no such process.

        Wire: CallMcpTool/list_processes, CallMcpTool/shell
        """
        return self._process(await process_control(self.session).find(check_id(process_id)))

    async def list(self) -> list[AsyncProcess]:
        """List the background processes of the session, the newest last.

        Those that have ended are there too, with their `exit_code`, until they are removed.

        Wire: CallMcpTool/list_processes, CallMcpTool/shell
        """
        return [self._process(entry) for entry in await process_control(self.session).list()]

    def _process(self, entry: ProcessEntry) -> AsyncProcess:
        return AsyncProcess(self.session, entry.id, entry.pid, command=entry.command, exit_code=entry.exit_code)
