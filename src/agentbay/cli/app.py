"""The command tree, and how exceptions become messages and exit statuses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Annotated, Any, cast

import typer

from agentbay.cli import COMMANDS
from agentbay.cli.groups import format_examples, make_group, skip_conversions
from agentbay.cli.help_pages import import_help_pages
from agentbay.cli.output import output
from agentbay.errors import AgentBayError, ConfigurationError, InvalidArgumentError

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

# Typer has Click's exceptions, but its own copies of them in newer releases, and no public name for this one.
_ClickException = cast(
    "type[Exception]", next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
)

_ABOUT = """
AgentBay sandbox sessions: isolated machines, on the cloud or on this one.

AGENTBAY_API_KEY and AGENTBAY_ENDPOINT choose the service; without an endpoint it is the cloud. Without a key, that of
`agentbay login` is used. `agentbay local` starts a service on this machine.

Exit status: 0 success, 1 failure, 2 wrong usage, 130 Ctrl-C; `exec`, `attach`, `logs --follow` and `run` return the
status of the command that they ran.
"""
_EXAMPLES = format_examples(
    "agentbay run hello.py --local            # try it, without an account",
    "agentbay local --state-dir ~/.agentbay   # a runtime for several programs",
    "agentbay shell --local                   # a terminal in a fresh session",
    "agentbay login                           # keep a key for all commands",
    "agentbay session create                  # prints the id of a new session",
    "agentbay session exec ID -- uname -a",
    "agentbay session attach ID               # a terminal in it",
    "agentbay mcp --config                    # give a session to an MCP client",
    "agentbay --install-completion            # completion for your shell",
)
_SEPARATOR_HINTS = {
    "exec": "Options of the command itself go after --, as in: agentbay session exec SESSION -- ls -la",
    "run": "Options of the script itself go after --, as in: agentbay run FILE -- --epochs 3",
}

app = make_group(_ABOUT, _EXAMPLES, COMMANDS, name="agentbay", pretty_exceptions_enable=False)


def _complete_profile(incomplete: str) -> list[str]:
    from agentbay.cli.login import complete_profile

    return complete_profile(incomplete)


@app.callback()
def choose_service(
    profile: Annotated[
        str,
        typer.Option(
            metavar="PROFILE",
            help="Profile to use, before all variables; see `agentbay login`.",
            autocompletion=_complete_profile,
        ),
    ] = "",
) -> None:
    """Choose the profile for all commands."""
    if profile:
        from agentbay.cli.shared import use_profile

        use_profile(profile)


def run_command_line(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit status."""
    # Read from the arguments themselves, since errors of the parser must be JSON too.
    output.reset(json="--json" in takewhile(lambda argument: argument != "--", arguments))
    if not arguments or {"-h", "--help"} & set(arguments):
        import_help_pages()
    root = typer.main.get_command(app)
    skip_conversions(root)
    try:
        status: int | None = root(list(arguments), prog_name="agentbay", standalone_mode=False)
    except _ClickException as error:
        hint = next((hint for name, hint in _SEPARATOR_HINTS.items() if name in arguments), "")
        _show_usage_error(error, hint if type(error).__name__ in ("NoSuchOption", "BadOptionUsage") else "")
        return EXIT_USAGE
    except typer.Abort:
        output.error(AgentBayError("Aborted."))
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone, as with `| head`, so there is nobody to tell.
        return EXIT_FAILED
    except AgentBayError as error:
        output.error(error)
        return EXIT_USAGE if isinstance(error, ConfigurationError | InvalidArgumentError) else EXIT_FAILED
    except OSError as error:  # of local files; network errors are AgentBayErrors
        output.error(error)
        return EXIT_FAILED
    except ValueError as error:  # an argument that the client refuses
        output.error(error)
        return EXIT_USAGE
    if status == EXIT_INTERRUPTED and output.json and "exit_code" not in output.partial_result:
        output.error_as_json({"type": "KeyboardInterrupt", "message": "Interrupted."})  # Typer makes it a status
    return status or 0


def _show_usage_error(error: Any, hint: str) -> None:
    """Write a parser error as JSON, or with the usage in a box."""
    if output.json:
        output.error_as_json({"type": "UsageError", "message": error.format_message(), "hint": hint})
        return
    import_help_pages().rich_format_error(error)
    if hint:
        output.note(hint)
