"""`agentbay version`: prints the version, as JSON too."""

from __future__ import annotations

import typer

from agentbay._version import __version__
from agentbay.cli.output import output
from agentbay.cli.shared import JsonOption


def add_to(root: typer.Typer) -> None:
    """Add this command to the command line."""
    root.command()(version)


def version(json: JsonOption = False) -> None:
    """Print the version."""
    output.show({"version": __version__}, __version__)
