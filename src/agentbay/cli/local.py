"""`agentbay local`: the runtime, and what this machine offers it."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Literal

import typer

from agentbay.cli.screen import screen
from agentbay.cli.shared import Json, examples, group
from agentbay.local import options

_EXAMPLES = examples(
    "agentbay local                            # a runtime on a free port, with a key of its own",
    "agentbay local --port 8790 --state-dir ~/.agentbay",
    "                                          # one that keeps its key, for several programs",
    "agentbay local doctor                     # can this machine isolate sessions? if not, what is missing?",
)
_ABOUT = """
Run isolated sessions on this machine, for clients on this machine, until it is stopped.

AGENTBAY_API_KEY, if set, is the key that clients must present.
"""

app = group(_ABOUT, _EXAMPLES, invoke_without_command=True, no_args_is_help=False)


@app.callback()
def local(
    context: typer.Context,
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="Port on 127.0.0.1; 0 is any.")] = 0,
    state_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            show_default="a temporary one, removed at the end",
            help="Where it keeps its files; one runtime at a time.",
        ),
    ] = None,
    isolation: Annotated[
        Literal["auto", "none"], typer.Option(help="auto isolates each session or refuses to start.")
    ] = "auto",
    link_url: Annotated[
        Literal["on", "off"], typer.Option(help="Whether sessions offer to be called directly.")
    ] = "on",
    storage_host: Annotated[
        list[str],
        typer.Option(
            metavar="HOST[:PORT]",
            help="Storage that sessions may copy from and to although its address is not public; may be repeated.",
        ),
    ] = [],  # noqa: B006  # typer copies it
    log_level: Annotated[Literal["debug", "info", "warning", "error"], typer.Option(help="What it logs.")] = "info",
) -> int:
    if context.invoked_subcommand is not None:
        return 0
    # The start is what users wait for: the server is imported only here.
    from agentbay.local.server import run

    chosen = options.Options(
        port=port,
        state_dir=state_dir,
        isolation=isolation,
        links=link_url == "on",
        log_level=log_level,
        storage_hosts=tuple(storage_host),
    )
    return run(chosen, os.environ.get("AGENTBAY_API_KEY", ""))


@app.command()
def doctor(json: Json = False) -> int:
    """Say whether this machine can isolate sessions, and what is missing."""
    from agentbay.local.sandbox.ladder import examine

    rungs = examine()
    usable, lack = any(rung.works for rung in rungs), options.missing_packages()
    said = [f"{'works' if rung.works else 'fails'}  {rung.name}: {rung.detail}" for rung in rungs]
    verdict = f"This machine {'can' if usable else 'cannot'} isolate sessions."
    facts = [{"name": rung.name, "works": rung.works, "detail": rung.detail} for rung in rungs]
    screen.show({"usable": usable, "rungs": facts, "missing": lack}, "\n".join([*said, verdict]))
    if lack:
        print(lack, file=sys.stderr)
    return 0 if usable and not lack else 1
