"""`agentbay run`: runs a script in a fresh session, and fetches its outputs."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentbay.cli.command import run_and_show
from agentbay.cli.groups import format_examples
from agentbay.cli.jobs import start_job
from agentbay.cli.output import output
from agentbay.cli.shared import (
    EndpointOption,
    EnvOption,
    ImageOption,
    JsonOption,
    TimeoutOption,
    WrapperCommand,
    check_keep,
    new_session,
    open_service,
    parse_pairs,
)
from agentbay.cli.transfer import fetch_tree, send_path
from agentbay.errors import FileError, InvalidArgumentError

if TYPE_CHECKING:
    from agentbay import Session

_EXAMPLES = format_examples(
    "agentbay run analysis.py        # its output files go to ./analysis-output",
    "agentbay run train.py --with data.csv --out result -- --epochs 3",
    "agentbay run hello.sh --local   # on this machine, without a key",
)
_INTERPRETERS = {".py": "python3", ".sh": "bash", ".js": "node", ".mjs": "node", ".r": "Rscript", ".pl": "perl"}
_WORK_DIRECTORY = "agentbay-run"
_START_MARKER = ".agentbay-run-began"
_OUTPUTS_DIRECTORY = ".agentbay-run-outputs"
# Hard links gather the outputs in one directory, which takes no second copy of them.
# Files newer than the marker were made or changed by the script.
_COLLECT_SCRIPT = (
    f"cd {_WORK_DIRECTORY} && find . -type f -newer ../{_START_MARKER} -not -path '*/__pycache__/*' "
    f"-exec sh -c 'mkdir -p ../{_OUTPUTS_DIRECTORY} && cp -l --parents -t ../{_OUTPUTS_DIRECTORY} \"$@\"' - {{}} +"
)


def add_to(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(cls=WrapperCommand, epilog=_EXAMPLES)(run)


def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="Script to run.")],
    arguments: Annotated[
        list[str], typer.Argument(metavar="ARGUMENT", help="Argument for the script, after `--`.")
    ] = [],  # noqa: B006
    with_files: Annotated[
        list[Path],
        typer.Option("--with", metavar="PATH", exists=True, help="File or directory that it needs; may be repeated."),
    ] = [],  # noqa: B006  # typer copies it
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", show_default="FILE-output", help="Directory for its output files.")
    ] = None,
    env: EnvOption = [],  # noqa: B006
    timeout: TimeoutOption = None,
    image: ImageOption = "",
    keep: Annotated[bool, typer.Option("--keep", help="Keep the session, and print its id.")] = False,
    local: Annotated[
        bool, typer.Option("--local", help="Run it on this machine, in a private runtime, without a key.")
    ] = False,
    endpoint: EndpointOption = "",
    json: JsonOption = False,
) -> int:
    """Run a script in a fresh session, show its output, and fetch its files.

    Files that the script creates or changes are copied to this machine.
    """
    check_keep(keep=keep, local=local)
    target = out or Path(f"{file.stem}-output")
    _check_writable(target)
    line = shlex.join([*_interpreter_command(file), *arguments])
    from agentbay import CreateSessionParams

    params = CreateSessionParams(image_id=image or None)
    with open_service(endpoint, local=local) as bay, new_session(bay, params, keep=keep) as session:
        session.file_system.create_directory(_WORK_DIRECTORY).unwrap()
        for path in [file, *with_files]:
            send_path(session, path, f"{_WORK_DIRECTORY}/")
        # File times advance in steps of milliseconds, so the script must start after the marker by at least one.
        session.command.run(f"touch {_START_MARKER}; sleep 0.02").check()
        code = run_and_show(start_job(session, line, cwd=_WORK_DIRECTORY, envs=parse_pairs(env, "--env")), timeout)
        fetched = _fetch_outputs(session, target)
    output.show_json({**output.partial_result, "outputs": str(fetched) if fetched else None})
    return code


def _check_writable(target: Path) -> None:
    """Refuse an unusable target for outputs before the script runs."""
    hint = "Name a directory with --out."
    if target.exists() and not target.is_dir():
        raise InvalidArgumentError(f"{target} is a file, so no outputs can go there.", hint=hint)
    parent = next(path for path in (target, *target.absolute().parents) if path.exists())
    try:
        Path(tempfile.mkdtemp(prefix=".agentbay-", dir=parent)).rmdir()
    except OSError as error:
        raise InvalidArgumentError(f"Outputs cannot be written to {target}: {error.strerror}.", hint=hint) from error


def _interpreter_command(file: Path) -> list[str]:
    with file.open("rb") as reader:
        if reader.read(2) == b"#!" and file.stat().st_mode & 0o100:
            return [f"./{file.name}"]
    runner = _INTERPRETERS.get(file.suffix.lower())
    if runner is None:
        raise InvalidArgumentError(
            f"There is no interpreter for {file.name}.",
            hint=f"Use one of {', '.join(_INTERPRETERS)}, or a first line #!... and make the file executable.",
        )
    return [runner, file.name]


def _fetch_outputs(session: Session, target: Path) -> Path | None:
    """Copy the outputs to this machine, and return their directory, or None without outputs."""
    session.command.run(_COLLECT_SCRIPT).check()
    if session.command.run(f"[ -d {_OUTPUTS_DIRECTORY} ]").unwrap().exit_code != 0:
        return None
    try:
        fetch_tree(session, _OUTPUTS_DIRECTORY, target)
    except (OSError, FileError) as error:  # the results must not be lost with the session
        rescued = Path(tempfile.mkdtemp(prefix=f"{target.name}-"))
        fetch_tree(session, _OUTPUTS_DIRECTORY, rescued)
        output.partial_result["outputs"] = str(rescued)
        message = f"The outputs could not be written to {target}: {error}"
        raise FileError(message, hint=f"They are in {rescued}.") from error
    session.command.run(f"rm -r {_OUTPUTS_DIRECTORY}").check()
    output.note(f"outputs in {target}")
    return target
