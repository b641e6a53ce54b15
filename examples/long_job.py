"""Start a long job in one program, and follow it from another.

    python examples/long_job.py

The job goes on by itself in the session, whatever becomes of the program that started it. All that is needed to find it
again are two ids; here the second program is a process of its own, to which they are given as arguments.
"""

from __future__ import annotations

import os
import subprocess
import sys

from agentbay import AgentBay, AgentBayError
from agentbay.testing import local_runtime

JOB = "for step in 1 2 3 4 5; do echo step $step; sleep 0.2; done; echo 42 > result.txt"


def start() -> tuple[str, str]:
    """Start the job, and return the ids of its session and process."""
    with AgentBay(strict=True) as bay:
        session = bay.create().session
        assert session is not None
        job = session.command.start(JOB)
        first = next(iter(job.stdout.lines()))
        print(f"started, and it has said {first!r}")
        return session.session_id, job.id


def follow(session_id: str, job_id: str) -> None:
    """Print the job's output from its beginning, then delete the session."""
    with AgentBay(strict=True) as bay:
        session = bay.get(session_id).session
        assert session is not None
        job = session.command.attach(job_id)
        for line in job.stdout.lines():
            print(f"  {line}", flush=True)
        if job.wait(timeout=60) != 0:
            raise AgentBayError(f"The job failed:\n{job.stderr.read()}")
        print("result:", session.file_system.read_file("result.txt").content.strip(), flush=True)
        session.delete()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        follow(*sys.argv[1:])
    else:  # a runtime that outlives the first program; on the cloud, there always is one
        with local_runtime() as runtime:
            os.environ.update(runtime.environment)
            ids = start()
            subprocess.run([sys.executable, __file__, *ids], check=True)
