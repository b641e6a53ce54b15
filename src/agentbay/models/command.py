"""Results of shell commands."""

from __future__ import annotations

from collections.abc import Sequence

from .._lazy_attrs import define, field
from ..errors import CommandError
from .base import BaseResult


class _ByteSlots(BaseResult):
    """Store bytes in slots, outside `__dict__`, which programs write as JSON."""

    __slots__ = ("_stderr_bytes", "_stdout_bytes")


@define(slots=False)
class CommandResult(_ByteSlots):
    """Outcome of a shell command.

    A non-zero exit code is not an error of the call: `success` is False, and nothing is raised. `check()` raises a
    `CommandError`.

    Attributes:
        output: `stdout` followed by `stderr`.
        error_message: Standard error of a failed command, or a sentence with its exit code. If the network
            refused hosts, a sentence says how to allow them.
        exit_code: Exit code of the command; 128 + N if signal N ended it; -1 if the command ran out of time, or could
            not run at all.
        stdout, stderr: What the command wrote to each stream, as text.
        trace_id: Trace id that the service gave a failed command, or "".
        truncated: Whether the service dropped output above its limit. Keyword only.
        refused_hosts: Hosts that the session's network refused while the command failed, as far as the service tells.
            Keyword only.
    """

    output: str = ""
    error_message: str = ""
    exit_code: int = 0
    stdout: str = ""
    stderr: str = ""
    trace_id: str = ""
    truncated: bool = field(default=False, kw_only=True)
    refused_hosts: list[str] = field(factory=list, kw_only=True)
    _stdout_bytes: bytes | None = field(default=None, alias="stdout_bytes", kw_only=True, eq=False, repr=False)
    _stderr_bytes: bytes | None = field(default=None, alias="stderr_bytes", kw_only=True, eq=False, repr=False)

    @property
    def stdout_bytes(self) -> bytes:
        """Standard output as bytes.

        The exact bytes if the service sent them, else `stdout` encoded as UTF-8.
        """
        return _to_bytes(self.stdout) if self._stdout_bytes is None else self._stdout_bytes

    @property
    def stderr_bytes(self) -> bytes:
        """Standard error as bytes, like `stdout_bytes`."""
        return _to_bytes(self.stderr) if self._stderr_bytes is None else self._stderr_bytes

    def check(self) -> CommandResult:
        """Return the result, or raise if the exit code is not 0.

        Raises:
            CommandTimeoutError: If the command ran out of time.
            CommandError: If the exit code is not 0.
            AgentBayError: If the command could not run at all.
        """
        if self.success:
            return self
        if self.exception is not None:
            raise self.exception
        last_line = (self.stderr or self.stdout).strip().splitlines()[-1:]
        detail = f": {last_line[0]}" if last_line else "."
        raise CommandError(
            f"The command exited with {self.exit_code}{detail}",
            hint=network_hint(self.refused_hosts),
            request_id=self.request_id,
        )

    def unwrap(self) -> CommandResult:
        """Return the result, or raise if the command did not run to its end.

        A non-zero exit code does not raise.

        Raises:
            AgentBayError: `exception`, if the command timed out or could not run.
        """
        if self.exception is not None:
            raise self.exception
        return self

    def _repr_html_(self) -> str | None:
        """Return HTML with the output and the exit code."""
        from .. import _html

        end = super()._repr_html_() if self.exit_code < 0 else None
        end = end or _html.note(f"exit code {self.exit_code}" if self.exit_code or not self.output else "")
        written = self.stdout if self.stdout or self.stderr else self.output
        dropped = _html.note("The service dropped output above its limit." if self.truncated else "")
        return _html.stack(_html.text(written), _html.text(self.stderr, wrong=True), dropped, end)


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # the escapes of JSON can carry lone surrogates


def network_hint(hosts: Sequence[str]) -> str:
    """Return how to allow hosts that a session's network refused, or ""."""
    if not hosts:
        return ""
    named = ", ".join(hosts)
    return f"The session's network refused {named}: name it in allow_hosts= of local(), or in --allow-host."
