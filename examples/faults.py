"""What a program sees of network faults: retries, unknown outcomes, refusals.

    python examples/faults.py

The faults are made by a transport put between the client and the network, so this can be a test as well.
"""

from __future__ import annotations

from collections import deque

import httpx

from agentbay import AgentBay, CommandError, Config, ConnectionLost, RateLimitError, SessionNotFoundError
from agentbay.testing import local_runtime

DROPPED, REFUSED, BUSY = "dropped", "refused", "busy"


class Faulty(httpx.BaseTransport):
    """A proxy that plays the faults of `script`, then lets requests through."""

    def __init__(self) -> None:
        self.script: deque[str] = deque()
        self.sent = 0
        self._network = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.sent += 1
        fault = self.script.popleft() if self.script else ""
        if fault == REFUSED:  # it was never sent: anything may be sent again
            raise httpx.ConnectError("refused", request=request)
        if fault == BUSY:  # it was refused unprocessed, and it is said when to come again
            return httpx.Response(429, headers={"Retry-After": "0"}, json={"Code": "Throttling", "Message": "Slow!"})
        response = self._network.handle_request(request)
        if fault == DROPPED:  # it was executed, but who asked does not learn it
            response.close()
            raise httpx.ReadError("connection reset", request=request)
        return response

    def close(self) -> None:
        self._network.close()


def main() -> None:
    """Play one fault after the other."""
    faulty = Faulty()
    with (
        local_runtime() as runtime,
        httpx.Client(transport=faulty) as http,
        AgentBay(runtime.api_key, Config(endpoint=runtime.endpoint), http_client=http) as bay,
        bay.session() as session,
    ):
        for script in ([REFUSED, BUSY], [DROPPED]):
            faulty.script.extend(script)
            before, found = faulty.sent, bay.list()
            print(f"a question, {script}: {found.total_count} session, {faulty.sent - before} requests")

        faulty.script.append(DROPPED)
        lost = session.command.run("echo once >> log.txt")
        assert isinstance(lost.exception, ConnectionLost)  # unknown, so it is not sent again: look before you repeat
        print("a command, ['dropped']:", session.command.run("wc -l < log.txt").stdout.strip(), "line was written")

        faulty.script.extend([BUSY] * 3)
        busy = bay.list()
        assert isinstance(busy.exception, RateLimitError)
        print("a question, busy for long:", busy.error_message)

        try:
            session.command.run("ls /nowhere").check()  # an exit code is an answer; check() makes an error of it
        except CommandError as error:
            print("a command that fails:", error)
        print("a session that is not there:", isinstance(bay.get("nobody").exception, SessionNotFoundError))


if __name__ == "__main__":
    main()
