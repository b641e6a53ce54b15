"""The `agentbay` command line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from agentbay._installation import find_damage, find_mixture
from agentbay._version import __version__

_REQUIRED_PACKAGES = ("typer", "rich")
_COMPLETION_VARIABLE = "_AGENTBAY_COMPLETE"  # set by the shell when it asks for completions
_EXIT_INTERRUPTED = 130
_INSTALL = 'pip install "agentbay-sdk[local]"'
# The module and the first line of help of each command; a module is imported when one of its commands is used.
COMMANDS = {
    "run": ("run", "Run a script in a fresh session, show its output, and fetch its files."),
    "shell": ("shell", "Open a terminal in a fresh session, and delete it at the end."),
    "login": ("login", "Keep a key in a profile, which commands then use."),
    "logout": ("login", "Remove a profile with its key."),
    "profile": ("login", "Profiles: keys with their services, which commands use."),
    "session": ("session", "Sessions: isolated machines that run commands and hold files."),
    "context": ("context", "Contexts: named stores of files that outlive sessions."),
    "image": ("image", "Images: root file systems that sessions of a local runtime run."),
    "local": ("local", "Run isolated sessions on this machine."),
    "mcp": ("mcp", "Offer a session to programs that speak the Model Context Protocol (MCP)."),
    "version": ("version", "Print the version."),
}
_SHORT_HELP = "\n".join(
    [
        "Usage: agentbay [OPTIONS] COMMAND [ARGS]...",
        "",
        "AgentBay sandbox sessions: isolated machines, on the cloud or on this one.",
        "",
        "Commands:",
        *(f"  {name:<8} {about}" for name, (_, about) in COMMANDS.items()),
        "",
        f"All commands but version need further packages: {_INSTALL}",
    ]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Help pages and usage errors may raise `SystemExit`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    _open_missing_streams()
    try:
        return _run(given)
    except KeyboardInterrupt:  # while modules are imported
        return _EXIT_INTERRUPTED


def _open_missing_streams() -> None:
    """Stand in for standard streams that whoever started the command has closed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - until the end


def _run(given: list[str]) -> int:
    # Needs none of the packages below, which take 0.1 s to import and may not be installed.
    if given in (["version"], ["--version"]):
        print(__version__)
        if message := find_damage() or find_mixture():
            print(message, file=sys.stderr)
        return 0
    if damage := find_damage():
        _show_error(damage, given)
        return 1
    if missing := [name for name in _REQUIRED_PACKAGES if find_spec(name) is None]:
        if _COMPLETION_VARIABLE in os.environ:  # a shell cannot show why there are no completions
            return 0
        if not given or "-h" in given or "--help" in given:
            print(_SHORT_HELP)
            return 0 if given else 2
        _show_error(f"The command line needs {' and '.join(missing)}: {_INSTALL}", given)
        return 1
    from agentbay.cli.app import run_command_line

    return run_command_line(given)


def _show_error(message: str, given: Sequence[str]) -> None:
    error = {"error": {"type": "ConfigurationError", "message": message}}
    print(json.dumps(error) if "--json" in given else message, file=sys.stderr)
