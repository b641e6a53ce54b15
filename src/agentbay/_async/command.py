"""Shell commands in a session."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence

from attrs import evolve

from .._arguments import POSITIVE_AND_FINITE, checked_arguments
from .._transport.command import (
    DEFAULT_COMMAND_TIMEOUT_MS,
    check_environment,
    command_limit_ms,
    may_be_directory_failure,
    read_command_result,
)
from .._transport.command_line import CommandLine, make_command_line
from .._transport.deadline import Deadline, time_limit
from .._transport.file_errors import file_text_or_raise, make_file_error
from .._transport.files import read_info
from .._transport.processes import ProcessEntry, check_id, find_entry
from .._wire.process_tools import StartProcess
from .._wire.tools import GetFileInfo, Shell
from ..errors import AgentBayError, ReplyError, TransportError
from ..models.command import CommandResult
from .command_lines import AsyncCommandStream, OutputCallback, prepared
from .error_boundary import folded
from .process import AsyncProcess, process_control
from .service import AsyncBaseService
from .waiting import clean_up

_COMMAND_REPLY_MARGIN_SECONDS = 10.0  # that the answer may take longer than the command


@checked_arguments("cwd", envs=None, timeout=POSITIVE_AND_FINITE)
class AsyncCommand(AsyncBaseService):
    """Run shell commands in a session.

    They run as the session's user and start in its home directory.
    """

    @folded(CommandResult, exit_code=-1)
    async def execute_command(
        self,
        command: str | Sequence[str],
        timeout_ms: float | None = DEFAULT_COMMAND_TIMEOUT_MS,
        cwd: str | None = None,
        envs: dict[str, str] | None = None,
        *,
        stdin: str | bytes | None = None,
        merge_stderr: bool = False,
        on_stdout: OutputCallback | None = None,
        on_stderr: OutputCallback | None = None,
        timeout: float | None = None,
    ) -> CommandResult:
        """Run a command and wait for its end.

        Args:
            command: What to run, as typed at a prompt; or a program and its arguments, of which nothing is expanded.
            timeout_ms: Milliseconds until the command and everything it started is killed; None is the default.
            cwd: Directory to run it in; None is the session's home.
            envs: Environment variables beside the session's own.
            stdin: What it can read, as text or bytes; None is nothing.
            merge_stderr: Put what it writes to standard error into `stdout`, in the order of writing.
            on_stdout, on_stderr: Called with each piece of output while it runs. What they raise is logged.
            timeout: The same in seconds; takes precedence over `timeout_ms`.

        Returns:
            Exit code and output. A non-zero exit code is an answer: `success` is False and nothing is raised. If time
            ran out, `exit_code` is -1 and `exception` is a `CommandTimeoutError` that carries the output so far; a
            strict client raises it. `truncated` says that the service dropped output above its limit. If `cwd` cannot
            be entered, `exit_code` is -1 and `exception` a `FileError`, such as `PathNotFoundError`.

        Raises:
            ValueError: If `envs` holds anything but strings.

        Wire: CallMcpTool/shell; with callbacks as for `start`; CallMcpTool/write_file for input, where shell takes none
        """
        line, checked = make_command_line(command, stdin, merge_stderr=merge_stderr), check_environment(envs)
        limit = command_limit_ms(timeout_ms, timeout)
        if on_stdout is None and on_stderr is None:
            return await self._run_line(line, limit, cwd, checked)
        # without input of its own it would wait for some, as a background process does
        line = line if line.stdin is not None else evolve(line, stdin=b"")
        deadline = Deadline(limit / 1000)
        with time_limit(limit / 1000 + _COMMAND_REPLY_MARGIN_SECONDS):
            process = await self._start(line, cwd, checked, line.text)
        return await AsyncCommandStream(process, on_stdout, on_stderr).run(deadline)

    async def _execute(
        self, command: str, timeout_ms: int, cwd: str | None, envs: dict[str, str] | None
    ) -> CommandResult:
        return await self._run_line(CommandLine(command), timeout_ms, cwd, check_environment(envs))

    async def _run_line(
        self, line: CommandLine, timeout_ms: int, cwd: str | None, envs: dict[str, str] | None
    ) -> CommandResult:
        whole = timeout_ms / 1000 + _COMMAND_REPLY_MARGIN_SECONDS
        async with prepared(self.session, line, Shell, Deadline(whole)) as ready:
            call = Shell(command=ready.text, timeout_ms=timeout_ms, cwd=cwd, envs=envs, **ready.tool_fields())
            # The session kills the command first, so that its output so far still arrives here.
            reply = await self.session._run_tool(call, timeout=whole, extend_while_paused=True)
            # Raised inside the block, so that `prepared` deletes input that the command has not taken.
            result = read_command_result(reply)
            if cwd is not None and may_be_directory_failure(result, cwd):
                await self._check_directory(cwd, whole)
        return result

    async def _check_directory(self, cwd: str, seconds: float) -> None:
        """Raise the typed error if a directory cannot be entered."""
        reply = await self.session._run_tool(GetFileInfo(path=cwd), timeout=seconds)
        info = read_info(file_text_or_raise(reply, cwd))
        if info.get("isDirectory") is False:
            reason = os.strerror(errno.ENOTDIR)
            raise make_file_error(f"cd: {cwd}: {reason}", number=errno.ENOTDIR, path=cwd, request_id=reply.request_id)

    run = execute_command  # the names of the published package
    exec = execute_command

    async def start(
        self,
        command: str | Sequence[str],
        cwd: str | None = None,
        envs: dict[str, str] | None = None,
        *,
        stdin: str | bytes | None = None,
        merge_stderr: bool = False,
        timeout: float | None = None,
    ) -> AsyncProcess:
        """Start a command in the background.

        If the call is cancelled or interrupted, nothing of the command is left.

        Args:
            command: What to run, as typed at a prompt; or a program and its arguments, of which nothing is expanded.
            cwd: Directory to run it in; None is the session's home.
            envs: Environment variables beside the session's own.
            stdin: All that it can read; None leaves its input open for `send_stdin`.
            merge_stderr: Put what it writes to standard error into `stdout`, in the order of writing.
            timeout: Seconds until it has started; None is 25.

        Raises:
            ValueError: If `envs` holds anything but strings.
            FileError: `cwd` cannot be entered, such as `PathNotFoundError`.
            CommandError: It could not be started.

        Wire: CallMcpTool/start_process, CallMcpTool/shell
        """
        with time_limit(timeout):
            line = make_command_line(command, stdin, merge_stderr=merge_stderr)
            return await self._start(line, cwd, check_environment(envs), line.text)

    async def _start(self, line: CommandLine, cwd: str | None, envs: dict[str, str] | None, label: str) -> AsyncProcess:
        """Start a command that lists show as `label`."""
        # Chosen here and not in the session, so that the same start can be sent again.
        process_id = os.urandom(8).hex()
        control = process_control(self.session)
        try:
            async with prepared(self.session, line, StartProcess, Deadline(self.session.timeout)) as ready:
                try:
                    pid = await control.start(process_id, ready, cwd, envs, label)
                except TransportError:  # perhaps it was started: the id makes starting idempotent
                    pid = await control.start(process_id, ready, cwd, envs, label)
        except BaseException as error:
            # It may have been started all the same, and nobody would know its id.
            if not isinstance(error, AgentBayError) or isinstance(error, (ReplyError, TransportError)):
                await clean_up(lambda: self._cancel_start(process_id))
            raise
        return AsyncProcess(self.session, process_id, pid, command=label)

    async def _cancel_start(self, process_id: str) -> None:
        with contextlib.suppress(AgentBayError):  # what happened before is what the caller must know
            await process_control(self.session).cancel(process_id)

    async def attach(self, process_id: str, *, timeout: float | None = None) -> AsyncProcess:
        """Find a background process that any client started before.

        Args:
            process_id: Its `id`.
            timeout: Seconds it may take; None is the client's time limit.

        Raises:
            ValueError: If it is not a valid id.
            CommandError: If the session has no such process.

        Wire: CallMcpTool/list_processes, CallMcpTool/shell
        """
        with time_limit(timeout):
            return self._process(find_entry(await process_control(self.session).list(), check_id(process_id)))

    async def list(self, *, timeout: float | None = None) -> list[AsyncProcess]:
        """List the background processes of the session, the newest last.

        Those that have ended are there too, with their `exit_code`, until they are removed.

        Args:
            timeout: Seconds it may take; None is the client's time limit.

        Wire: CallMcpTool/list_processes, CallMcpTool/shell
        """
        with time_limit(timeout):
            return [self._process(entry) for entry in await process_control(self.session).list()]

    def _process(self, entry: ProcessEntry) -> AsyncProcess:
        return AsyncProcess(self.session, entry.id, entry.pid, command=entry.command, exit_code=entry.exit_code)
