"""Background jobs in a session."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Thread, Timer
from typing import TYPE_CHECKING, NamedTuple

from agentbay._transport.command_line import CommandLine
from agentbay.errors import AgentBayError, CommandError, DeadlineExceeded, NotFoundError

if TYPE_CHECKING:
    from agentbay import Process, Session

WriteCallback = Callable[[bytes], object]

_TERMINATE_GRACE_SECONDS = 3.0  # between SIGTERM and SIGKILL
_STDIN_TIMEOUT_SECONDS = 86400.0  # how long a program may leave its input unread
_STDIN_PIECE_BYTES = 36 * 1024  # input sent per call


class JobInfo(NamedTuple):
    """One row of a job list.

    `state` is "running" or the exit code.
    """

    job: str
    state: str
    command: str


def start_job(session: Session, line: str, *, cwd: str, envs: dict[str, str], stdin: bool = False) -> Process:
    """Start a shell command that outlives this process.

    Args:
        session: Session to run it in.
        line: The command line, for a shell.
        cwd: Working directory; "" is the home of the session.
        envs: Environment variables in addition to those of the session.
        stdin: Whether input will follow; without it, standard input is empty.
    """
    shell = f'exec "$(command -v bash || command -v sh)" -c {shlex.quote(line)}'
    script = shell if stdin else f"{shell} </dev/null"
    return session.command._start(CommandLine(script), cwd or None, envs or None, label=line)


def find_job(session: Session, name: str) -> Process:
    """Find a job by its id.

    Raises:
        NotFoundError: If there is no such job.
    """
    try:
        return session.command.attach(name)
    except (ValueError, CommandError) as error:
        raise NotFoundError(
            f"There is no job {name!r} in this session.", hint="To see which there are: agentbay session logs ID --list"
        ) from error


def list_jobs(session: Session) -> Iterator[JobInfo]:
    """Yield the jobs of a session, the newest last."""
    for process in session.command.list():
        state = "running" if process.exit_code is None else str(process.exit_code)
        yield JobInfo(process.id, state, process.command.partition("\n")[0])


def show_output(process: Process, out: WriteCallback, err: WriteCallback) -> int | None:
    """Write the output so far of a job, and return its exit code."""
    for stream, write in (("stdout", out), ("stderr", err)):
        done = 0
        while piece := process._poll_output(stream, done, 0.0).data:
            write(piece)
            done += len(piece)
    return process.poll()


def follow_output(process: Process, out: WriteCallback, err: WriteCallback) -> int:
    """Write the output of a job until it ends, and return its exit code.

    Raises:
        CommandError: If the job was killed from outside, and has no exit code.
    """
    return _Follower(process, out, err).follow()


class _Follower:
    """Writes a job's output, and resumes after an interrupt with `follow()`."""

    def __init__(self, process: Process, out: WriteCallback, err: WriteCallback) -> None:
        self._process, self._out, self._err = process, out, err
        self._stdout_offset = 0  # bytes written so far
        self._errors: list[BaseException] = []
        self._stderr_thread = Thread(target=self._copy_stderr, daemon=True)

    def follow(self) -> int:
        if self._stderr_thread.ident is None:
            self._stderr_thread.start()
        for piece in self._process.stdout.chunks(self._stdout_offset):
            self._stdout_offset += len(piece)
            self._out(piece)
        self._stderr_thread.join()
        if self._errors:
            raise self._errors[0]
        return self._process.wait()

    def _copy_stderr(self) -> None:
        try:
            for piece in self._process.stderr.chunks():
                self._err(piece)
        except (AgentBayError, OSError) as error:
            self._errors.append(error)


def run_attached(
    process: Process, out: WriteCallback, err: WriteCallback, *, timeout: float | None, stdin: bool = False
) -> int:
    """Follow a job to its end, and terminate it if this process is interrupted.

    Args:
        process: The job.
        out: Function that gets its standard output.
        err: Function that gets its standard error.
        timeout: Seconds after which to terminate it; None is never.
        stdin: Whether to forward the standard input of this process to it.

    Raises:
        CommandError: If the job ran out of time, or was killed from outside.
    """
    errors: list[AgentBayError] = []
    if stdin:
        Thread(target=_forward_stdin, args=(process, errors), daemon=True).start()
    watchdog = Timer(timeout or 0, _terminate_on_timeout, (process, timeout, errors))
    watchdog.daemon = True
    if timeout is not None:
        watchdog.start()
    follower = _Follower(process, out, err)
    try:
        code = follower.follow()
    except KeyboardInterrupt:
        terminate(process)
        follower.follow()  # what the job writes while it ends
        process.remove()
        raise
    except OSError:  # the output cannot be written; the session keeps it
        terminate(process)
        raise
    finally:
        watchdog.cancel()
    if timeout is not None:
        watchdog.join()  # it may still be terminating the job, whose files are removed next
    process.remove()
    if errors:
        raise errors[0]
    return code


def terminate(process: Process) -> None:
    """Terminate a job by SIGTERM, and by SIGKILL if that does not help."""
    process.signal(signal.SIGTERM)
    try:
        process.wait(_TERMINATE_GRACE_SECONDS)
    except DeadlineExceeded:
        process.kill()


def _terminate_on_timeout(process: Process, timeout: float, errors: list[AgentBayError]) -> None:
    errors.append(CommandError(f"The command was terminated: it ran for more than {timeout:g} s."))
    with suppress(AgentBayError):  # whoever follows the job meets the same error
        terminate(process)


def _forward_stdin(process: Process, errors: list[AgentBayError]) -> None:
    """Forward the standard input of this process to a job."""
    try:
        # Not sys.stdin.buffer: a thread that waits in it holds its lock, and the exit of the interpreter would abort.
        while piece := os.read(sys.stdin.fileno(), _STDIN_PIECE_BYTES):
            process.send_stdin(piece, timeout=_STDIN_TIMEOUT_SECONDS)
        process.close_stdin()
    except AgentBayError as error:
        with suppress(CommandError):  # the job was removed just now
            if process.poll() is None:  # a job that has ended needs no more input
                errors.append(error)
                terminate(process)
