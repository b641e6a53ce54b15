"""A job that takes longer than one call: data in, three stages in the background, progress, the result back.

    python examples/pipeline.py

The job goes on by itself in the session. So this program could end, and another one look after it: all that is
needed are the ids of the session and of the job.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from agentbay import AgentBay, AgentBayError, Session

STAGES = """\
import collections, json, pathlib, time

def stage(name):
    print(name)
    time.sleep(0.3)  # the hard work

stage("read")
rows = [line.split(",") for line in pathlib.Path("sales.csv").read_text().splitlines()]
stage("add up")
total = collections.Counter()
for city, amount in rows:
    total[city] += int(amount)
stage("write")
pathlib.Path("out").mkdir()
pathlib.Path("out/total.json").write_text(json.dumps(total, sort_keys=True))
"""


def follow(session: Session, process_id: str) -> None:
    """Follow the job to its end, from its beginning; raise if it failed."""
    job = session.command.attach(process_id)
    for line in job.stdout.lines():
        print(f"  stage: {line}")
    if job.wait(timeout=60) != 0:
        raise AgentBayError(f"The job failed:\n{job.stderr.read()}")


def main() -> None:
    """Make some data, have it added up in a session, and keep the result here."""
    cities = random.Random(7)
    data = "".join(f"{cities.choice(['Oslo', 'Lima', 'Pune'])},{cities.randint(1, 99)}\n" for _ in range(50_000))
    with AgentBay.local(strict=True) as bay, bay.session() as session:  # strict: what fails, raises
        session.file_system.write_file("sales.csv", data)
        session.file_system.write_file("stages.py", STAGES)
        job = session.command.start("python3 -u stages.py")
        follow(session, job.id)
        result = session.file_system.read_file("out/total.json", format="bytes").content
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "total.json").write_bytes(result)
        print(Path(folder, "total.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
