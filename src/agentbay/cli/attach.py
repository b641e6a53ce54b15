"""`agentbay session attach`: connects this terminal to a terminal in a session."""

from __future__ import annotations

import os
import selectors
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Annotated

import typer

from agentbay.cli.groups import format_examples
from agentbay.cli.output import output
from agentbay.cli.shared import CwdOption, EndpointOption, EnvOption, SessionArgument, open_session, parse_pairs
from agentbay.errors import AgentBayError, InvalidArgumentError

if TYPE_CHECKING:
    from agentbay import PtyHandle, Session

_DETACH_KEY = b"\x1d"  # Ctrl-], as in telnet
_MAX_SIZE_CHARACTERS = 500
# Undoes what a program that was killed may leave behind: colours, a hidden cursor, mouse reporting, bracketed paste and
# the alternate screen.
_RESET_SEQUENCE = b"\x1b[0m\x1b[?25h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?1049l\r\n"
_EXAMPLES = format_examples(
    "agentbay session attach ID",
    "agentbay session attach ID --shell python3",
    "agentbay session attach ID --terminal PTY   # one that was detached with Ctrl-]",
)


def add_to(app: typer.Typer) -> None:
    """Add this command to its group."""
    app.command(epilog=_EXAMPLES)(attach)


def attach(
    session: SessionArgument,
    shell: Annotated[str, typer.Option(metavar="PROGRAM", help="Program to run; the session's shell by default.")] = "",
    terminal: Annotated[str, typer.Option(metavar="PTY", help="Reattach to an open terminal.")] = "",
    cwd: CwdOption = "",
    env: EnvOption = [],  # noqa: B006  # typer copies it
    endpoint: EndpointOption = "",
) -> int:
    """Open a terminal in a session, and return the exit status of its program.

    Ctrl-] detaches from the terminal, and its program keeps running.
    """
    check_terminal("attach")
    with open_session(session, endpoint) as handle, exit_on_signals():
        if not terminal:
            return run_in_terminal(handle, shell, cwd, parse_pairs(env, "--env"), stays=True)
        opened = handle.pty.connect(terminal, on_data=_write_to_terminal)
        opened.resize(*_terminal_size())
        return _bridge(handle, opened, stays=True)


def check_terminal(command: str) -> None:
    """Refuse a command that needs a terminal where there is none.

    Raises:
        InvalidArgumentError: Names the command, and what to use instead.
    """
    if sys.platform == "win32":
        raise InvalidArgumentError(f"{command} needs a POSIX terminal; use WSL, or `agentbay session exec`.")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidArgumentError(
            f"{command} needs a terminal.", hint="In a script, use: agentbay session exec SESSION -- COMMAND"
        )


def run_in_terminal(session: Session, program: str, cwd: str, envs: dict[str, str], *, stays: bool) -> int:
    """Run a program in a new terminal of a session, which this terminal shows.

    Args:
        program: "" is the session's shell.
        stays: Whether the session stays after Ctrl-].

    Returns:
        The program's exit code, 0 if the user detached.
    """
    size = _terminal_size()
    opened = session.pty.create(*size, cwd or None, envs or None, program or None, on_data=_write_to_terminal)
    return _bridge(session, opened, stays=stays)


def _bridge(session: Session, opened: PtyHandle, *, stays: bool) -> int:
    code = _TerminalBridge(opened).run()
    if code is None and stays:
        again = f"agentbay session attach {session.session_id} --terminal {opened.pty_session_id}"
        output.note(f"Detached; the program keeps running. To reattach: {again}")
    if code is None:
        opened.disconnect()
    return code or 0


class _TerminalBridge:
    """Connects this terminal and the remote one until one of them ends."""

    def __init__(self, handle: PtyHandle) -> None:
        self._handle = handle
        self._exit_code: int | None = None
        self._error: AgentBayError | None = None
        self._wake_read_fd, self._wake_write_fd = os.pipe()

    def run(self) -> int | None:
        """Return the exit code of the program, or None if the user detached."""
        waiting = Thread(target=self._wait_for_exit, daemon=True)
        # A signal handler writes to it, and a handler that blocks on a full pipe would stop the whole program.
        os.set_blocking(self._wake_write_fd, False)
        ended = False
        try:
            with _raw_mode(), _wake_on_resize(self._wake_write_fd):
                try:
                    waiting.start()
                    ended = self._forward_input()
                finally:
                    if not ended or self._error is not None:
                        _write_to_terminal(_RESET_SEQUENCE)
        finally:
            if ended:  # otherwise the thread may still write to the pipe, which closes with this process
                os.close(self._wake_read_fd)
                os.close(self._wake_write_fd)
        if self._error is not None:
            raise self._error
        return self._exit_code if ended else None

    def _wait_for_exit(self) -> None:
        try:
            self._exit_code = self._handle.wait()
        except AgentBayError as error:
            self._error = error
        os.write(self._wake_write_fd, b"E")

    def _forward_input(self) -> bool:
        """Forward input until the program ends (True) or the user detaches (False)."""
        stdin = sys.stdin.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(stdin, selectors.EVENT_READ)
            selector.register(self._wake_read_fd, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if self._wake_read_fd in ready and self._handle_wakeup():
                    return True
                if stdin in ready and not self._send_typed(os.read(stdin, 65536)):
                    return False

    def _handle_wakeup(self) -> bool:
        why = os.read(self._wake_read_fd, 4096)
        if b"E" in why:
            return True
        if self._handle.is_connected:
            self._handle.resize(*_terminal_size())
        return False

    def _send_typed(self, typed: bytes) -> bool:
        before, leaving, _ = typed.partition(_DETACH_KEY)
        if before and self._handle.is_connected:
            self._handle.send_input(before)
        return bool(typed) and not leaving


def _terminal_size() -> tuple[int, int]:
    columns, lines = os.get_terminal_size(sys.stdout.fileno())
    # Some terminals do not know their size and report 0.
    return min(columns or 80, _MAX_SIZE_CHARACTERS), min(lines or 24, _MAX_SIZE_CHARACTERS)


def _write_to_terminal(data: bytes) -> None:
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]


@contextmanager
def _raw_mode() -> Iterator[None]:
    """Switch the terminal to raw mode for a block, and restore it afterwards."""
    import termios
    import tty

    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    try:
        tty.setraw(stdin, termios.TCSADRAIN)  # TCSADRAIN keeps what was typed ahead
        yield
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


@contextmanager
def _wake_on_resize(waker: int) -> Iterator[None]:
    """Write to the wake pipe when the size of the window changes."""
    # The handler sends no request itself: it may interrupt one that is half sent in this thread.
    before = signal.signal(signal.SIGWINCH, lambda *_: os.write(waker, b"R"))
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that the terminal is restored."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
