"""Measure the longest time for which one session's load keeps the service's event loop to itself.

    python benchmarks/loop_blocks.py [seconds [name ...]]

While a callback of the loop runs, no other session's call goes on. So its processor time is what a load costs its
neighbours, whatever else the machine does; `neighbours.py` has the same loads by the clock. Each load runs for that
long (5 s) against a runtime of its own on asyncio's loop, which can be measured, instead of uvloop. Beside the loop,
worker threads take turns of `agentbay.local.worker_thread.SWITCH_INTERVAL_SECONDS`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time

from measure import machine, runtime
from neighbours import LOADS, Client

# The runtime, with every callback of its loop measured from the moment that it is told to.
MEASURED_RUNTIME = """
import json, signal, sys, time
sys.modules["uvloop"] = None  # whose callbacks cannot be measured
from asyncio.events import Handle
taken, run, told = [0.0], Handle._run, []

def measured(self):
    began = time.thread_time()
    try:
        return run(self)
    finally:
        if told:
            taken.append(time.thread_time() - began)

Handle._run = measured
signal.signal(signal.SIGUSR1, lambda *_: told.append(True))
from agentbay.local.__main__ import main
status = main()
taken.sort(reverse=True)
tenth = taken[min(9, len(taken) - 1)]
print(json.dumps({"callbacks": len(taken), "longest_ms": taken[0] * 1000, "tenth_ms": tenth * 1000}))
"""


def measure(name: str, seconds: float) -> dict[str, float]:
    """Return what the callbacks took while a load ran and another session ran commands."""
    with tempfile.TemporaryDirectory() as directory:
        options = ("--log-level=error", "--state-dir", directory)
        with runtime(*options, program=("-c", MEASURED_RUNTIME)) as (url, service):
            assert service.stdin is not None
            assert service.stdout is not None
            client = Client(url)
            loaded, other = client.action("CreateMcpSession"), client.action("CreateMcpSession")
            client.shell(other["SessionId"], "true")
            service.send_signal(10)
            end = time.monotonic() + seconds

            def load() -> None:
                own = Client(str(client.http.base_url))
                while time.monotonic() < end:
                    LOADS[name](own, loaded)

            thread = threading.Thread(target=load)
            thread.start()
            while thread.is_alive():
                client.shell(other["SessionId"], "true")
            service.stdin.close()
            found: dict[str, float] = json.loads(service.stdout.read())
            return found


def main() -> None:
    """Measure the loads, and print a table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    print(f"{machine()}; milliseconds of processor time")
    print(f"{'':20} {'callbacks':>10} {'longest':>8} {'tenth':>8}")
    for name in sys.argv[2:] or LOADS:
        found = measure(name, seconds)
        row = f"{found['callbacks']:10.0f} {found['longest_ms']:8.1f} {found['tenth_ms']:8.1f}"
        print(f"{name:20} {row}", flush=True)


if __name__ == "__main__":
    main()
