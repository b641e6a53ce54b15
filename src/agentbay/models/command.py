"""Shell commands: what running one gave."""

from __future__ import annotations

from attrs import define

from ..errors import CommandError
from .base import BaseResult


@define(slots=False)
class CommandResult(BaseResult):
    """Outcome of a shell command.

    A non-zero exit code is an answer, not a fault: `success` is False, `error_message` is the command's standard
    error, nothing is raised. Call `check()` to raise on it.

    Attributes:
        output: `stdout` followed by `stderr`.
        exit_code: The command's own, 128 + N if signal N ended it, -1 if there is none: it ran
            out of time and was killed, or could not be run at all.
        stdout, stderr: What the command wrote.
        trace_id: The service's trace id of a failed command, or "".
    """

    output: str = ""
    error_message: str = ""
    exit_code: int = 0
    stdout: str = ""
    stderr: str = ""
    trace_id: str = ""

    def check(self) -> CommandResult:
        """Return the result itself if the command exited with 0.

        Raises:
            CommandTimeoutError: If the command ran out of time.
            CommandError: If it exited with another code.
            AgentBayError: If it could not be run at all.
        """
        if self.success:
            return self
        if self.exception is not None:
            raise self.exception
        last = (self.stderr or self.stdout).strip().splitlines()[-1:]
        said = f": {last[0]}" if last else "."
        raise CommandError(f"The command exited with {self.exit_code}{said}", request_id=self.request_id)

    def unwrap(self) -> CommandResult:
        """Return the result if the command ran to its end, whatever its exit code; raise what prevented it."""
        if self.exception is not None:
            raise self.exception
        return self

    def _repr_html_(self) -> str | None:
        """Show in a notebook what the command wrote, and how it ended."""
        from .. import _html

        end = super()._repr_html_() if self.exit_code < 0 else None
        end = end or _html.note(f"exit code {self.exit_code}" if self.exit_code or not self.output else "")
        written = self.stdout if self.stdout or self.stderr else self.output
        return _html.stack(_html.text(written), _html.text(self.stderr, wrong=True), end)
