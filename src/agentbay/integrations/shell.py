"""A bash that keeps its variables and directory between commands."""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from agentbay import Session
from agentbay.errors import AgentBayError, DeadlineExceeded, PtyError

_START_SECONDS = 30.0
_KEPT_BYTES = 1 << 22  # of the beginning of an output, and of its end
_CONTROL_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\^_=>])")


@dataclass(frozen=True)
class ShellOutput:
    """What the shell wrote up to its prompt.

    Up to an expected text there is no exit code.
    """

    output: str
    exit_code: int | None = None
    expected: str = ""


class Shell:
    """A bash in a terminal of the session.

    It reads each command from a file, so that a command may be of any length. Before each prompt it prints a mark with
    the number of the line and its exit code. Methods that wait raise `DeadlineExceeded` if it takes too long, and
    `PtyError` if the shell has ended.
    """

    def __init__(self, session: Session) -> None:
        self._session, self._token, self._count = session, secrets.token_hex(8), 0
        self._file = f"/tmp/shell-{self._token}"
        self._is_at_prompt, self._exit_code, self._unread = True, 0, bytearray()
        self._terminal = session.pty.create(argv=["bash", "--noediting"], echo=False)
        self.run_line("true", _START_SECONDS)  # what comes before is the first prompt

    def find_syntax_error(self, command: str) -> str:
        """Store a command for `run`, and return what bash says against its syntax."""
        check = ["bash", "-c", 'cat > "$0" && bash -n "$0"', self._file]
        checked = self._session.command.run(check, stdin=command).unwrap()
        return checked.stderr if checked.exit_code else ""

    def run(self, timeout: float | None, expected: Sequence[str] = ()) -> ShellOutput:
        """Run the stored command, when an earlier one has ended."""
        if not self._is_at_prompt:
            self._read(timeout, ())
        # The subshell sets $? to the exit code of the command before, and has bash report the jobs that have ended.
        return self.run_line(f"(exit {self._exit_code}); . {self._file}", timeout, expected)

    def run_line(self, line: str, timeout: float | None, expected: Sequence[str] = ()) -> ShellOutput:
        """Type a short line at the prompt."""
        self._count += 1
        # Scripts such as those that activate an environment change PS1.
        mark = rf'printf "\001{self._token}-{self._count}-%d\002" $?; PS1= PS2= PS0='
        return self.type(f"PROMPT_COMMAND='{mark}'; {line}\n", timeout, expected)

    def type(self, text: str, timeout: float | None, expected: Sequence[str] = ()) -> ShellOutput:
        """Type something, for whatever program is in the foreground."""
        self._is_at_prompt = False
        self._terminal.send_input(text)
        return self._read(timeout, expected)

    def interrupt(self, attempts: int, timeout: float, expected: Sequence[str] = ()) -> ShellOutput:
        """Interrupt the program in the foreground, and kill it if it goes on."""
        for _ in range(attempts):
            # Some programs ignore the first Ctrl-C.
            with contextlib.suppress(DeadlineExceeded):
                return self.type("\x03", timeout, expected)
        stopped = self.type("\x1a", timeout, expected)
        killed = self.run_line("kill -9 %%", timeout)
        return ShellOutput(stopped.output + killed.output, killed.exit_code, stopped.expected)

    def close(self) -> None:
        """End the shell and its programs."""
        with contextlib.suppress(AgentBayError):  # it has ended, or the session has
            self._terminal.kill()
        self._session.command.run(["rm", "-f", self._file])

    def _read(self, timeout: float | None, expected: Sequence[str]) -> ShellOutput:
        mark = rf"\x01{self._token}-{self._count}-(?P<code>\d+)\x02"
        pattern = re.compile("|".join([mark, *(f"(?:{text})" for text in expected)]).encode(), re.DOTALL)
        deadline = None if timeout is None else time.monotonic() + timeout
        while (end := pattern.search(self._unread)) is None:
            if len(self._unread) > 2 * _KEPT_BYTES:
                self._unread[_KEPT_BYTES:-_KEPT_BYTES] = b"\n[...]\n"
            piece = self._terminal.read(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if not piece:
                raise PtyError("The shell has ended.")
            self._unread += piece
        code, matched = end["code"], end[0]  # before what it looks at changes
        # An interrupted line may have left its mark late.
        raw = re.split(rb"\x01%b-\d+-\d+\x02" % self._token.encode(), self._unread[: end.start()])[-1]
        del self._unread[: end.end()]
        output = _CONTROL_SEQUENCE.sub("", raw.decode(errors="backslashreplace").replace("\r\n", "\n"))
        if code:
            self._is_at_prompt, self._exit_code = True, int(code)
            return ShellOutput(output, self._exit_code)
        found = next(text for text in expected if re.fullmatch(text.encode(), matched, re.DOTALL))
        return ShellOutput(output, expected=found)
