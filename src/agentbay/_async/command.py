"""Shell commands in a session."""

from __future__ import annotations

from .._transport.command import read_result
from .._wire.tools import Shell
from ..models.command import CommandResult
from .door import returns
from .service import AsyncBaseService

_MARGIN = 10.0  # how much longer than the command the answer may take, seconds


class AsyncCommand(AsyncBaseService):
    """Run shell commands in a session, as its user, starting in its home directory."""

    @returns(CommandResult, exit_code=-1)
    async def execute_command(
        self,
        command: str,
        timeout_ms: int = 50000,
        cwd: str | None = None,
        envs: dict[str, str] | None = None,
    ) -> CommandResult:
        """Run a command with the session's shell and wait for its end.

        Args:
            command: What to run, as typed at a prompt.
            timeout_ms: Milliseconds until the command and everything it started is killed.
            cwd: Directory to run it in; None is the session's home.
            envs: Environment variables beside the session's own.

        Returns:
            Exit code and output. A non-zero exit code is an answer: `success` is False and nothing is raised. If time
            ran out, `exit_code` is -1 and `exception` is a `CommandTimeoutError` that carries the output so far.

        Raises:
            ValueError: If `envs` holds anything but strings.

        Wire: CallMcpTool/shell
        """
        _check_environment(envs)
        call = Shell(command=command, timeout_ms=timeout_ms, cwd=cwd, envs=envs)
        return read_result(await self.session.run_tool(call, timeout=timeout_ms / 1000 + _MARGIN))

    run = execute_command
    exec = execute_command


def _check_environment(envs: dict[str, str] | None) -> None:
    wrong = [
        f"{name!r}: {value!r}"
        for name, value in (envs or {}).items()
        if not (isinstance(name, str) and isinstance(value, str))
    ]
    if wrong:
        raise ValueError(
            "Invalid environment variables: all keys and values must be strings. "
            f"Found invalid entries: {', '.join(wrong)}"
        )
