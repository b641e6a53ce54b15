"""The `agentbay` command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from agentbay._version import __version__

_REQUIRED_PACKAGES = ("typer", "rich")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Help pages and usage errors raise `SystemExit`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Needs none of the packages below, which take 0.1 s to import and may not be installed.
    if given in (["version"], ["--version"]):
        print(__version__)
        return 0
    if missing := [name for name in _REQUIRED_PACKAGES if find_spec(name) is None]:
        print(f'The command line needs {" and ".join(missing)}: pip install "agentbay-sdk[local]"', file=sys.stderr)
        return 1
    from agentbay.cli.app import run_command_line

    return run_command_line(given)
