"""The command tree, and how exceptions become messages and exit statuses."""

from __future__ import annotations

from collections.abc import Sequence

from agentbay._version import __version__
from agentbay.cli import attach, command, context, local, run, session
from agentbay.cli.output import output
from agentbay.cli.shared import JsonOption, format_examples, make_group
from agentbay.errors import AgentBayError, ConfigurationError, InvalidArgumentError

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

_ABOUT = """
AgentBay sandbox sessions: isolated machines, on the cloud or on this one.

AGENTBAY_API_KEY and AGENTBAY_ENDPOINT choose the service; without an endpoint it is the cloud. `agentbay local` starts
a service on this machine.

Exit status: 0 success, 1 failure, 2 wrong usage, 130 Ctrl-C; `exec`, `attach`, `logs --follow` and `run` return the
status of the command that they ran.
"""
_EXAMPLES = format_examples(
    "agentbay run hello.py --local            # try it, without an account",
    "agentbay local --state-dir ~/.agentbay   # a runtime for several programs",
    "agentbay session create                  # prints the id of a new session",
    "agentbay session exec ID -- uname -a",
    "agentbay session attach ID               # a terminal in it",
    "agentbay --install-completion            # completion for your shell",
)


class _CommandExit(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


def _raise_exit(status: int | None) -> None:
    raise _CommandExit(status or 0)


# Typer turns every return value into SystemExit(0), so the exit status of a command leaves it as an exception.
app = make_group(_ABOUT, _EXAMPLES, name="agentbay", result_callback=_raise_exit, pretty_exceptions_enable=False)
app.add_typer(local.app, name="local")
app.add_typer(session.app, name="session")
app.add_typer(context.app, name="context")
command.add_to(session.app)
attach.add_to(session.app)
run.add_to(app)


@app.command()
def version(json: JsonOption = False) -> None:
    """Print the version."""
    output.show({"version": __version__}, __version__)


def run_command_line(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit status."""
    output.json = False
    try:
        app(list(arguments), prog_name="agentbay")
    except _CommandExit as ended:
        return ended.status
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except AgentBayError as error:
        output.error(error)
        return EXIT_USAGE if isinstance(error, ConfigurationError | InvalidArgumentError) else EXIT_FAILED
    except OSError as error:  # of local files; network errors are AgentBayErrors
        if isinstance(error, BrokenPipeError):
            return EXIT_FAILED
        output.error(error)
        return EXIT_FAILED
    raise AssertionError("unreachable: every command raises its exit status")
