"""Shell commands in a session."""

from __future__ import annotations

import math
import secrets

from .._arguments import checked_arguments
from .._transport import process_scripts as commands
from .._transport.command import DEFAULT_COMMAND_TIMEOUT_MS, check_environment, read_command_result
from .._wire.tools import Shell, mark_internal
from ..errors import TransportError
from ..models.command import CommandResult
from .error_boundary import folded
from .process import AsyncProcess
from .service import AsyncBaseService

_START_TIMEOUT_MS = 15000  # that the session may take to start a process or to find one
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

        Args:
            command: What to run, as typed at a prompt.
            cwd: Directory to run it in; None is the session's home.
            envs: Environment variables beside the session's own.

        Raises:
            ValueError: If `envs` holds anything but strings.
            CommandError: It could not be started.

        Wire: CallMcpTool/shell
        """
        # Chosen here and not in the session, so that the same start can be sent again.
        process_id = secrets.token_hex(8)
        directory = commands.process_directory(process_id)
        text = mark_internal(commands.start_script(process_id, command, cwd), starts=command, directory=directory)
        call = Shell(command=text, timeout_ms=_START_TIMEOUT_MS, envs=check_environment(envs))
        seconds = _START_TIMEOUT_MS / 1000 + _COMMAND_REPLY_MARGIN_SECONDS
        try:
            reply = await self.session._run_tool(call, timeout=seconds)
        except TransportError:  # perhaps it was started: the id makes starting idempotent
            reply = await self.session._run_tool(call, timeout=seconds)
        return AsyncProcess(self.session, process_id, commands.read_pid(reply, process_id))

    async def attach(self, process_id: str) -> AsyncProcess:
        """Find a background process that any client started before.

        Args:
            process_id: Its `id`.

        Raises:
            ValueError: If it is not a valid id.
            CommandError: If the session has no such process.

        Wire: CallMcpTool/shell
        """
        call = Shell(
            command=mark_internal(commands.find_script(commands.check_id(process_id))), timeout_ms=_START_TIMEOUT_MS
        )
        reply = await self.session._run_tool(call)
        return AsyncProcess(self.session, process_id, commands.read_pid(reply, process_id))
