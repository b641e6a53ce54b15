"""`agentbay session exec`, `logs` and `cp`: what is done inside a session."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from agentbay.cli.jobs import attend, find, follow as follow_job, jobs, show, start
from agentbay.cli.screen import screen
from agentbay.cli.shared import Directory, Endpoint, Json, Seconds, SessionId, Variables, examples, found, pairs
from agentbay.cli.transfer import Place, fetch, send
from agentbay.errors import InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from agentbay import Process, Session

_EXEC = examples(
    "agentbay session exec ID -- ls -la",
    "agentbay session exec ID 'echo $HOME | rev'      # one argument is a line",
    "cat data.csv | agentbay session exec ID --stdin -- wc -l",
    "agentbay session exec ID --detach -- make test   # prints a job; see logs",
)
_LOGS = examples(
    "agentbay session logs ID            # what the newest job has written so far",
    "agentbay session logs ID --follow   # ... and writes, until it ends",
    "agentbay session logs ID --list     # all jobs",
)
_CP = examples(
    "agentbay session cp data.csv ID:data/         # a file or a directory, there",
    "agentbay session cp ID:/tmp/report .          # and back",
    "agentbay session cp ID:result.json - | jq .   # to standard output",
)


def add_to(app: typer.Typer) -> None:
    """Add these commands to their group."""
    app.command("exec", epilog=_EXEC)(run_command)
    app.command(epilog=_LOGS)(logs)
    app.command(epilog=_CP)(cp)


def run_command(
    session: SessionId,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="What to run, best after `--`.")],
    cwd: Directory = "",
    env: Variables = [],  # noqa: B006  # typer copies it
    timeout: Seconds = None,
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="Give it standard input.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Print the job's name and return at once.")] = False,
    endpoint: Endpoint = "",
    json: Json = False,
) -> int:
    """Run a command in a session, and end with its exit status. Its output appears as it is written."""
    line = command[0] if len(command) == 1 else shlex.join(command)
    with found(session, endpoint) as handle:
        process = start(handle, line, cwd=cwd, envs=pairs(env, "--env"), stdin=stdin)
        if detach:
            screen.show({"job": process.id}, process.id)
            return 0
        return attended(process, timeout, stdin=stdin)


def attended(process: Process, timeout: float | None, *, stdin: bool = False) -> int:
    """Show what a job of this program's own writes; return its exit code."""
    if not screen.json:
        return attend(process, _to_stdout, _to_stderr, timeout=timeout, stdin=stdin)
    kept = _Kept()
    code = attend(process, kept.out.extend, kept.err.extend, timeout=timeout, stdin=stdin)
    screen.data({"exit_code": code, **kept.texts()})
    return code


class _Kept:
    """Output that is shown as JSON at the end."""

    def __init__(self) -> None:
        self.out, self.err = bytearray(), bytearray()

    def texts(self) -> dict[str, str]:
        return {"stdout": self.out.decode(errors="replace"), "stderr": self.err.decode(errors="replace")}


def _to_stdout(piece: bytes) -> None:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _to_stderr(piece: bytes) -> None:
    sys.stderr.buffer.write(piece)
    sys.stderr.buffer.flush()


def logs(
    session: SessionId,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Which job; the newest by default.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends, with its status.")] = False,
    all_jobs: Annotated[bool, typer.Option("--list", help="List the jobs instead.")] = False,
    endpoint: Endpoint = "",
    json: Json = False,
) -> int:
    """Show what a job, started with `exec --detach`, has written."""
    with found(session, endpoint) as handle:
        if all_jobs:
            screen.rows([listed._asdict() for listed in jobs(handle)], "There are no jobs in this session.")
            return 0
        process = find(handle, job or _newest(handle))
        read = follow_job if follow else show
        if screen.json:
            kept = _Kept()
            code = read(process, kept.out.extend, kept.err.extend)
            screen.data({"job": process.id, "exit_code": code, **kept.texts()})
        else:
            code = read(process, _to_stdout, _to_stderr)
        return (code or 0) if follow else 0


def _newest(session: Session) -> str:
    name = ""
    for listed in jobs(session):
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
    endpoint: Endpoint = "",
    json: Json = False,
) -> None:
    """Copy a file or a directory between this machine and a session. Relative paths there start at its home."""
    here, there = Place.read(source), Place.read(target)
    if bool(here.name) == bool(there.name):
        raise InvalidArgumentError("One of SOURCE and TARGET must be SESSION:PATH, the other a path on this machine.")
    with found(here.name or there.name, endpoint) as handle:
        if there.name:
            moved = send(handle, here.local, there.path)
        else:
            moved = fetch(handle, here.path, there.local)
    if target != "-":
        screen.data({"source": source, "target": target, "bytes": moved.bytes, "skipped": moved.skipped})
