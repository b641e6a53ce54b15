"""The runtime of SWE-ReX in a session."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import asyncio
import io
import logging
from pathlib import Path

from swerex import exceptions
from swerex.runtime import abstract as rex
from swerex.utils.log import get_logger

from agentbay import Session, errors
from agentbay.integrations.shell import Shell, ShellOutput

_NO_LIMIT_SECONDS = 24 * 3600


class AgentBayRuntime(rex.AbstractRuntime):
    """Runs shells and commands in a session.

    It runs the synchronous client in threads, since SWE-agent makes each call in a new event loop.
    """

    def __init__(self, session: Session, logger: logging.Logger | None = None) -> None:
        self.session, self.logger = session.with_options(strict=False), logger or get_logger("rex-runtime")
        self._shells: dict[str, Shell] = {}

    async def is_alive(self, *, timeout: float | None = None) -> rex.IsAliveResponse:
        """Return whether the session answers."""
        limit = timeout or _NO_LIMIT_SECONDS
        try:
            (await asyncio.to_thread(self.session.command.run, ["true"], timeout=limit)).unwrap()
        except errors.AgentBayError as error:
            return rex.IsAliveResponse(is_alive=False, message=str(error))
        return rex.IsAliveResponse(is_alive=True)

    async def create_session(self, request: rex.CreateSessionRequest) -> rex.CreateSessionResponse:
        """Open a shell."""
        if request.session in self._shells:
            raise exceptions.SessionExistsError(f"session {request.session!r} already exists")
        self._shells[request.session] = shell = await asyncio.to_thread(Shell, self.session)
        sourced = [f"source {path}" for path in request.startup_source]
        try:
            shown = await asyncio.to_thread(shell.run_line, "; ".join([*sourced, "true"]), request.startup_timeout)
        except errors.DeadlineExceeded as error:
            await self.close_session(rex.CloseBashSessionRequest(session=request.session))
            raise exceptions.CommandTimeoutError(f"{sourced}: not done in {request.startup_timeout} s") from error
        return rex.CreateBashSessionResponse(output=shown.output)

    async def run_in_session(self, action: rex.Action) -> rex.Observation:
        """Run a command in a shell, or interrupt one."""
        try:
            return await asyncio.to_thread(_act, self._find(action.session), action)
        except errors.DeadlineExceeded as error:
            raise exceptions.CommandTimeoutError(f"{action!r}: not done in {action.timeout} s") from error
        except errors.PtyError as error:
            raise exceptions.NoExitCodeError(f"{action!r}: the shell has ended: {error}") from error

    def _find(self, name: str) -> Shell:
        if name not in self._shells:
            raise exceptions.SessionDoesNotExistError(f"session {name!r} does not exist")
        return self._shells[name]

    async def close_session(self, request: rex.CloseSessionRequest) -> rex.CloseSessionResponse:
        """End a shell."""
        await asyncio.to_thread(self._find(request.session).close)
        del self._shells[request.session]
        return rex.CloseBashSessionResponse()

    async def execute(self, command: rex.Command) -> rex.CommandResponse:
        """Run a command as `subprocess.run` does, with `env` besides the session's variables."""
        words = [command.command] if isinstance(command.command, str) else command.command
        argv = ["/bin/sh", "-c", *words] if command.shell else words
        limit = _NO_LIMIT_SECONDS if command.timeout is None else command.timeout
        run, merge = self.session.command.run, command.merge_output_streams
        result = await asyncio.to_thread(run, argv, None, command.cwd, command.env, merge_stderr=merge, timeout=limit)
        if isinstance(result.exception, errors.CommandTimeoutError):
            raise exceptions.CommandTimeoutError(f"Timeout ({command.timeout}s) exceeded while running command")
        result.unwrap()
        if command.check:
            _check(command, result.exit_code, result.output)
        return rex.CommandResponse(stdout=result.stdout, stderr=result.stderr, exit_code=result.exit_code)

    async def read_file(self, request: rex.ReadFileRequest) -> rex.ReadFileResponse:
        """Read a file as text."""
        result = await asyncio.to_thread(self.session.file_system.read_file, request.path, format="bytes")
        data = io.BytesIO(result.unwrap().content)
        return rex.ReadFileResponse(content=io.TextIOWrapper(data, request.encoding or "utf-8", request.errors).read())

    async def write_file(self, request: rex.WriteFileRequest) -> rex.WriteFileResponse:
        """Write a file, and make its directories."""
        result = await asyncio.to_thread(self.session.file_system.write_file, request.path, request.content)
        result.unwrap()
        return rex.WriteFileResponse()

    async def upload(self, request: rex.UploadRequest) -> rex.UploadResponse:
        """Copy a file or a directory of this machine into the session."""
        await asyncio.to_thread(_upload, self.session, Path(request.source_path), request.target_path)
        return rex.UploadResponse()

    async def close(self) -> rex.CloseResponse:
        """End all shells."""
        for name in list(self._shells):
            await self.close_session(rex.CloseBashSessionRequest(session=name))
        return rex.CloseResponse()


def _upload(session: Session, source: Path, target: str) -> None:
    files = session.file_system
    if not source.is_dir():
        files.write_file(target, source.read_bytes()).unwrap()
    elif skipped := files.push(source, target).skipped:
        raise FileExistsError(f"{target}: these of {source} cannot be put there: {', '.join(map(str, skipped))}")


def _act(shell: Shell, action: rex.Action) -> rex.BashObservation:
    if isinstance(action, rex.BashInterruptAction):
        return _observe(shell.interrupt(action.n_retry, action.timeout, action.expect), 0)
    if action.is_interactive_command or action.is_interactive_quit:
        seen = shell.type(f"{action.command}\n", action.timeout, action.expect)
        if action.is_interactive_quit:  # the program may have left the echo on
            shell.run_line("stty -echo", action.timeout)
        return _observe(seen, 0)
    if said := shell.find_syntax_error(action.command):
        extra = {"bash_stdout": "", "bash_stderr": said}
        raise exceptions.BashIncorrectSyntaxError(f"{action.command!r}: {said}", extra_info=extra)
    seen = shell.run(action.timeout, action.expect)
    if action.check == "raise":
        _check(action, seen.exit_code, seen.output)
    return _observe(seen, None if action.check == "ignore" else seen.exit_code)


def _observe(seen: ShellOutput, exit_code: int | None) -> rex.BashObservation:
    return rex.BashObservation(output=seen.output, exit_code=exit_code, expect_string=seen.expected)


def _check(asked: rex.BashAction | rex.Command, exit_code: int | None, output: str) -> None:
    if exit_code == 0:
        return
    text = f"Command {asked.command!r} failed with exit code {exit_code}. Here is the output:\n{output!r}"
    kind = exceptions.NoExitCodeError if exit_code is None else exceptions.NonZeroExitCodeError
    raise kind(f"{asked.error_msg}: {text}" if asked.error_msg else text)
