"""`agentbay session exec`, `logs` and `cp`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from agentbay.cli.groups import format_examples
from agentbay.cli.jobs import find_job, follow_output as follow_job, list_jobs, run_attached, show_output, start_job
from agentbay.cli.output import output
from agentbay.cli.shared import (
    CwdOption,
    EndpointOption,
    EnvOption,
    JsonOption,
    SessionArgument,
    TimeoutOption,
    WrapperCommand,
    open_session,
    parse_pairs,
)
from agentbay.cli.transfer import CopyLocation, fetch_path, send_path
from agentbay.errors import InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from agentbay import Process, Session

_EXEC = format_examples(
    "agentbay session exec ID -- ls -la",
    "agentbay session exec ID 'echo $HOME | rev'      # a shell line",
    "cat data.csv | agentbay session exec ID --stdin -- wc -l",
    "agentbay session exec ID --detach -- make test   # prints a job id; see logs",
)
_LOGS = format_examples(
    "agentbay session logs ID            # output of the newest job so far",
    "agentbay session logs ID --follow   # ... until it ends",
    "agentbay session logs ID --list     # all jobs",
)
_CP = format_examples(
    "agentbay session cp data.csv ID:data/         # a file or a directory, in",
    "agentbay session cp ID:/tmp/report .          # and out of it",
    "agentbay session cp ID:result.json - | jq .   # to standard output",
)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the group `session`."""
    app.command("exec", cls=WrapperCommand, epilog=_EXEC)(run_command)
    app.command(epilog=_LOGS)(logs)
    app.command(epilog=_CP)(cp)


def run_command(
    session: SessionArgument,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="Command to run, after `--`.")],
    cwd: CwdOption = "",
    env: EnvOption = [],  # noqa: B006  # typer copies it
    timeout: TimeoutOption = None,
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="Forward standard input to it.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Print the job id and return at once.")] = False,
    endpoint: EndpointOption = "",
    json: JsonOption = False,
) -> int:
    """Run a command in a session, show its output, and return its exit status."""
    line = command[0] if len(command) == 1 else shlex.join(command)
    with open_session(session, endpoint) as handle:
        process = start_job(handle, line, cwd=cwd, envs=parse_pairs(env, "--env"), stdin=stdin)
        if detach:
            output.show({"job": process.id}, process.id)
            return 0
        try:
            code = run_and_show(process, timeout, stdin=stdin)
        except BrokenPipeError:
            # A reader that has gone, as with `| head`, wants no note on where the rest is.
            raise
        except OSError:
            output.note(f"The session keeps the output: agentbay session logs {session} {process.id}")
            raise
        output.show_json(output.partial_result)
        return code


def run_and_show(process: Process, timeout: float | None, *, stdin: bool = False) -> int:
    """Show the output of an attached job, and return its exit code.

    In JSON mode the output is kept as the partial result, for the final result or for an error.
    """
    if not output.json:
        return run_attached(process, _to_stdout, _to_stderr, timeout=timeout, stdin=stdin)
    with _partial_result() as (out, err):
        code = run_attached(process, out.extend, err.extend, timeout=timeout, stdin=stdin)
        output.partial_result["exit_code"] = code
        return code


@contextmanager
def _partial_result() -> Iterator[tuple[bytearray, bytearray]]:
    """Keep standard output and error, for the final result or for an error."""
    out, err = bytearray(), bytearray()
    try:
        yield out, err
    finally:
        texts = {"stdout": out.decode(errors="replace"), "stderr": err.decode(errors="replace")}
        output.partial_result.update(texts)


def _to_stdout(piece: bytes) -> None:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _to_stderr(piece: bytes) -> None:
    sys.stderr.buffer.write(piece)
    sys.stderr.buffer.flush()


def logs(
    session: SessionArgument,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of the job; the newest by default.")] = "",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the job to its end, and return its exit status.")
    ] = False,
    all_jobs: Annotated[bool, typer.Option("--list", help="List the jobs instead.")] = False,
    endpoint: EndpointOption = "",
    json: JsonOption = False,
) -> int:
    """Show the output of a job that `exec --detach` started."""
    with open_session(session, endpoint) as handle:
        if all_jobs:
            output.show_table([listed._asdict() for listed in list_jobs(handle)], "There are no jobs in this session.")
            return 0
        process = find_job(handle, job or _newest_job(handle))
        read = follow_job if follow else show_output
        if output.json:
            with _partial_result() as (out, err):
                code = read(process, out.extend, err.extend)
                output.partial_result.update(job=process.id, exit_code=code)
            output.show_json(output.partial_result)
        else:
            code = read(process, _to_stdout, _to_stderr)
        return (code or 0) if follow else 0


def _newest_job(session: Session) -> str:
    name = ""
    for listed in list_jobs(session):
        name = listed.job
    if not name:
        raise NotFoundError(
            "There are no jobs in this session.",
            hint="Start one with: agentbay session exec SESSION --detach -- COMMAND",
        )
    return name


def cp(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A path, or SESSION:PATH.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A path, or SESSION:PATH; - is standard output.")],
    endpoint: EndpointOption = "",
    json: JsonOption = False,
) -> None:
    """Copy a file or a directory between this machine and a session.

    Relative paths in the session start at its home directory.
    """
    here, there = CopyLocation.parse(source), CopyLocation.parse(target)
    if bool(here.name) == bool(there.name):
        raise InvalidArgumentError("One of SOURCE and TARGET must be SESSION:PATH, the other a path on this machine.")
    with open_session(here.name or there.name, endpoint) as handle:
        if there.name:
            moved = send_path(handle, here.local, there.path)
        else:
            moved = fetch_path(handle, here.path, there.local)
    if target != "-":
        output.show_json({"source": source, "target": target, "bytes": moved.bytes, "skipped": moved.skipped})
