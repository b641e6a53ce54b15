"""Attach Dask workers to existing sessions by id. Needs dask[distributed].

    python examples/dask_workers.py

A handle does not travel, an id does: the program makes the sessions, the workers attach to them, the program deletes
them. With a cluster of several machines it is the same on the cloud, where every worker's environment has the key.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from distributed import Client, LocalCluster

from agentbay import AgentBay
from agentbay.testing import local_runtime

PROGRAM = """
import random, sys
random.seed(int(sys.argv[1]))
print(sum(random.random() ** 2 + random.random() ** 2 < 1 for _ in range(200_000)))
"""
SAMPLES, SEEDS, SESSIONS = 200_000, 8, 2


def throw(session_id: str, seed: int) -> int:
    """Attach to a session in a worker, and run the program there."""
    with AgentBay(strict=True) as bay:  # the environment says where the service is
        session = bay.get(session_id).session
        assert session is not None
        return int(session.command.run(f"python3 pi.py {seed}").check().stdout)


def main() -> None:
    """Estimate pi with workers in two processes that share two sessions."""
    with local_runtime() as runtime, runtime.agent_bay(strict=True) as bay, ExitStack() as sessions:
        os.environ.update(runtime.environment)  # before the workers start, which inherit it
        ids = []
        for _ in range(SESSIONS):
            session = sessions.enter_context(bay.session())
            session.file_system.write_file("pi.py", PROGRAM)
            ids.append(session.session_id)
        with (
            LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address="", silence_logs=40) as cluster,
            Client(cluster) as client,
        ):
            jobs = [client.submit(throw, ids[seed % SESSIONS], seed) for seed in range(SEEDS)]
            hits = sum(job.result() for job in jobs)
        print(f"pi is about {4 * hits / (SAMPLES * SEEDS):.2f}, by {SEEDS} jobs in {SESSIONS} sessions")


if __name__ == "__main__":
    main()
