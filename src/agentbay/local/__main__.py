"""`python -m agentbay.local`: the private runtime of `AgentBay.local()`, started and ended by the client.

The first line of standard input is the key; when standard input ends, so does the runtime.
"""

from __future__ import annotations

import sys

from agentbay.local.options import parse


def main() -> int:
    options = parse(sys.argv[1:], "python -m agentbay.local")
    key = sys.stdin.readline().strip()
    if not key:
        sys.stderr.write("The first line of standard input must be the key. To start one by hand: agentbay local\n")
        return 2
    from agentbay.local.server import run

    return run(options, key, lifeline=sys.stdin.fileno())


if __name__ == "__main__":
    sys.exit(main())
