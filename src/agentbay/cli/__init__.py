"""The `agentbay` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from agentbay._version import __version__
from agentbay.local import options

_EXAMPLES = """examples:
  agentbay local                            a runtime on a free port, with a key of its own
  agentbay local --port 8790 --state-dir ~/.agentbay
                                            one that keeps its key, for several programs
  agentbay local doctor                     can this machine isolate sessions? if not, what is missing?

AGENTBAY_API_KEY, if set, is the key that clients of `agentbay local` must present.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    chosen = _parser().parse_args(arguments)
    return int(chosen.run(chosen))


def _parser() -> argparse.ArgumentParser:
    # argparse, not a framework: this must answer, and say what to install, where only the base package is.
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "agentbay",
        description="AgentBay sandbox sessions.",
        epilog=_EXAMPLES,
        formatter_class=layout,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    local = commands.add_parser(
        "local",
        help="run isolated sessions on this machine",
        description="Run isolated sessions on this machine, for clients on this machine, until it is stopped.",
        epilog=_EXAMPLES,
        formatter_class=layout,
        allow_abbrev=False,
    )
    options.add_arguments(local, "info")
    local.set_defaults(run=_local)
    doctor = local.add_subparsers(title="commands", metavar="COMMAND").add_parser(
        "doctor", help="say whether this machine can isolate sessions, and what is missing"
    )
    doctor.set_defaults(run=_doctor)
    commands.add_parser("version", help="print the version").set_defaults(run=_version)
    return parser


def _local(chosen: argparse.Namespace) -> int:
    # The start is what users wait for: the server is imported only here.
    from agentbay.local.server import run

    return run(options.read(chosen), os.environ.get("AGENTBAY_API_KEY", ""))


def _doctor(_: argparse.Namespace) -> int:
    from agentbay.local.sandbox.ladder import examine

    rungs = examine()
    for rung in rungs:
        print(f"{'works' if rung.works else 'fails'}  {rung.name}: {rung.detail}")
    usable = any(rung.works for rung in rungs)
    print("This machine can isolate sessions." if usable else "This machine cannot isolate sessions.")
    if lack := options.missing_packages():
        print(lack, file=sys.stderr)
    return 0 if usable and not lack else 1


def _version(_: argparse.Namespace) -> int:
    print(__version__)
    return 0
