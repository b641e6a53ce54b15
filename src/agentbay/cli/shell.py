"""`agentbay shell`: a terminal in a fresh session, which is deleted at its end."""

from __future__ import annotations

from typing import Annotated

import typer

from agentbay.cli.attach import check_terminal, exit_on_signals, run_in_terminal
from agentbay.cli.groups import format_examples
from agentbay.cli.shared import CwdOption, EndpointOption, EnvOption, check_keep, new_session, open_service, parse_pairs

_EXAMPLES = format_examples(
    "agentbay shell --local             # on this machine, without a key",
    "agentbay shell --shell python3",
    "agentbay shell --local --writable /app --env STAGE=test",
)


def add_to(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(epilog=_EXAMPLES)(shell)


def shell(
    shell: Annotated[str, typer.Option(metavar="PROGRAM", help="Program to run; the session's shell by default.")] = "",
    image: Annotated[str, typer.Option(metavar="IMAGE", help="Image of the session.")] = "",
    cwd: CwdOption = "",
    env: EnvOption = [],  # noqa: B006  # typer copies it
    writable: Annotated[
        list[str],
        typer.Option(
            metavar="DIR", help="Further directory that the session may write, such as /app; may be repeated."
        ),
    ] = [],  # noqa: B006
    keep: Annotated[bool, typer.Option("--keep", help="Keep the session, and print its id.")] = False,
    local: Annotated[
        bool, typer.Option("--local", help="Run it on this machine, in a private runtime, without a key.")
    ] = False,
    endpoint: EndpointOption = "",
) -> int:
    """Open a terminal in a fresh session, and delete it at the end.

    Ctrl-] ends it at once. With --keep the session stays, and after Ctrl-] its program too.
    """
    from agentbay import CreateSessionParams

    check_terminal("shell")
    check_keep(keep=keep, local=local)
    params = CreateSessionParams(image_id=image or None, envs=parse_pairs(env, "--env"), writable=writable)
    with open_service(endpoint, local=local) as bay, exit_on_signals(), new_session(bay, params, keep=keep) as session:
        return run_in_terminal(session, shell, cwd, {}, stays=keep)
