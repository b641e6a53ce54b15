"""A process that deletes a session when its server is gone."""

from __future__ import annotations

import sys

from agentbay import AgentBay
from agentbay.errors import NotFoundError


def main() -> None:
    """Wait for the end of standard input and delete the session.

    A line of input says that the server has deleted it.
    """
    if sys.stdin.readline():
        return
    with AgentBay() as bay:
        result = bay.get(sys.argv[1])
        if not isinstance(result.exception, NotFoundError):
            result.unwrap().session.delete().unwrap()


if __name__ == "__main__":
    main()
