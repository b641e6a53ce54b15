"""Programs that run in a session by themselves, and whose output is followed from here."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from threading import Thread, Timer
from typing import TYPE_CHECKING, NamedTuple

from agentbay._transport.process_scripts import PROCESSES_DIRECTORY
from agentbay.errors import AgentBayError, CommandError, DeadlineExceeded, NotFoundError

if TYPE_CHECKING:
    from agentbay import Process, Session

WriteCallback = Callable[[bytes], object]

_TERMINATE_GRACE_SECONDS = 3.0  # seconds that a program has to end by itself when it is asked to
_STDIN_TIMEOUT_SECONDS = 86400.0  # seconds that a program may leave its input unread
_STDIN_PIECE_BYTES = 36 * 1024  # bytes of input, which travel in one call
_LIST_SCRIPT = f"""\
cd {PROCESSES_DIRECTORY} 2>/dev/null || exit 0
for job in $(ls -tr); do
  state=$(cat "$job/exit" 2>/dev/null) || state=running
  printf '%s\\t%s\\t%s\\n' "$job" "$state" "$(head -n 1 "$job/command" 2>/dev/null)"
done"""


class JobInfo(NamedTuple):
    """A job as a list shows it: `state` is its exit code, or "running" if it has none."""

    job: str
    state: str
    command: str


def start_job(session: Session, line: str, *, cwd: str, envs: dict[str, str], stdin: bool = False) -> Process:
    """Start a command, as typed at a prompt; it does not end with this program.

    Args:
        session: Where.
        line: The command.
        cwd: Directory to run it in; "" is the session's home.
        envs: Environment variables beside the session's own.
        stdin: Whether it has an input; otherwise that is empty.
    """
    shell = f'exec "$(command -v bash || command -v sh)" -c {shlex.quote(line)}'
    process = session.command.start(shell if stdin else f"{shell} </dev/null", cwd or None, envs or None)
    session.file_system.write_file(f".agentbay/processes/{process.id}/command", line + "\n")
    return process


def find_job(session: Session, name: str) -> Process:
    """Find a job.

    Raises:
        NotFoundError: There is none of that name.
    """
    try:
        return session.command.attach(name)
    except (ValueError, CommandError) as error:
        raise NotFoundError(
            f"There is no job {name!r} in this session.", hint="To see which there are: agentbay session logs ID --list"
        ) from error


def list_jobs(session: Session) -> Iterator[JobInfo]:
    """The jobs of a session, the newest last."""
    for line in session.command.run(_LIST_SCRIPT).check().stdout.splitlines():
        yield JobInfo(*line.split("\t", 2))


def show_output(process: Process, out: WriteCallback, err: WriteCallback) -> int | None:
    """Pass on what a job has written so far; return its exit code if it has ended."""
    for stream, write in (("stdout", out), ("stderr", err)):
        done = 0
        while piece := process._poll_output(stream, done, 0.0).data:
            write(piece)
            done += len(piece)
    return process.poll()


def follow_output(process: Process, out: WriteCallback, err: WriteCallback) -> int:
    """Pass on what a job writes, until it ends; return its exit code.

    Raises:
        CommandError: It was killed from outside, so there is none.
    """
    lost: list[BaseException] = []
    beside = Thread(target=_copy_chunks, args=(process.stderr.chunks(), err, lost), daemon=True)
    beside.start()
    for piece in process.stdout.chunks():
        out(piece)
    beside.join()
    if lost:
        raise lost[0]
    return process.wait()


def run_attached(
    process: Process, out: WriteCallback, err: WriteCallback, *, timeout: float | None, stdin: bool = False
) -> int:
    """Follow a job that belongs to this program: it does not outlive it.

    Args:
        process: The job.
        out, err: Get its output.
        timeout: Seconds after which it is ended; None is never.
        stdin: Whether to give it this program's input.

    Raises:
        CommandError: It ran out of time, or was killed from outside.
    """
    wrong: list[AgentBayError] = []
    if stdin:
        Thread(target=_forward_stdin, args=(process, wrong), daemon=True).start()
    watch = Timer(timeout or 0, _terminate_on_timeout, (process, timeout, wrong))
    watch.daemon = True
    if timeout is not None:
        watch.start()
    try:
        code = follow_output(process, out, err)
    except (KeyboardInterrupt, BrokenPipeError):
        terminate(process)
        raise
    finally:
        watch.cancel()
    if timeout is not None:
        watch.join()  # it may be at ending the job, and looks at what is removed next
    process.remove()
    if wrong:
        raise wrong[0]
    return code


def terminate(process: Process) -> None:
    """End a job: asked first, then forced."""
    process.signal(signal.SIGTERM)
    try:
        process.wait(_TERMINATE_GRACE_SECONDS)
    except DeadlineExceeded:
        process.kill()


def _terminate_on_timeout(process: Process, timeout: float, wrong: list[AgentBayError]) -> None:
    wrong.append(CommandError(f"The command was ended: it ran for more than {timeout:g} s."))
    with suppress(AgentBayError):  # what is wrong with it, the one who follows it is told too
        terminate(process)


def _copy_chunks(pieces: Iterable[bytes], write: WriteCallback, lost: list[BaseException]) -> None:
    try:
        for piece in pieces:
            write(piece)
    except (AgentBayError, OSError) as error:
        lost.append(error)


def _forward_stdin(process: Process, wrong: list[AgentBayError]) -> None:
    """Give a job what comes on this program's input, as it comes; it may end before that does."""
    try:
        while piece := sys.stdin.buffer.read1(_STDIN_PIECE_BYTES):  # type: ignore[union-attr]  # only a replaced one has none
            process.send_stdin(piece, timeout=_STDIN_TIMEOUT_SECONDS)
        process.close_stdin()
    except AgentBayError as error:
        with suppress(CommandError):  # it was removed just now
            if process.poll() is None:  # otherwise it had no need of more
                wrong.append(error)
                terminate(process)
