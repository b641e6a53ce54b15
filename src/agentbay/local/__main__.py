"""`python -m agentbay.local`: the private runtime that `AgentBay.local()` starts.

The first line of standard input is the key. The end of standard input ends the runtime.
"""

from __future__ import annotations

import logging
import os
import sys

from agentbay.errors import ConfigurationError
from agentbay.local.options import parse_arguments


def main() -> int:
    try:
        options = parse_arguments(sys.argv[1:], "python -m agentbay.local")
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    key = sys.stdin.readline().strip()
    if not key:
        sys.stderr.write("The first line of standard input must be the key. To start one by hand: agentbay local\n")
        return 2
    from agentbay.local.server import run

    return run(options, key, parent_pipe=sys.stdin.fileno())


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # all is closed by now: to take the interpreter apart as well would take as long as closing it
