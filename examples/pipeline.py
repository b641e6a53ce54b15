"""A data pipeline with one session per stage and the data in a context.

    python examples/pipeline.py

What a stage writes below /tmp/data is in the context when its session ends, and there when the next one starts. A stage
that fails stops the pipeline; it can be run again from there, since the data of the earlier ones is kept.
"""

from __future__ import annotations

import random

from agentbay import AgentBay, Context, ContextSync, CreateSessionParams

DATA = "/tmp/data"
STAGES = {
    "clean": """
rows = [line.split(",") for line in open("raw.csv").read().splitlines()]
good = [row for row in rows if len(row) == 2 and row[1].isdigit()]
open("clean.csv", "w").write("\\n".join(map(",".join, good)))
print(f"{len(rows) - len(good)} of {len(rows)} rows dropped")
""",
    "add up": """
import collections, json
total = collections.Counter()
for line in open("clean.csv").read().splitlines():
    city, amount = line.split(",")
    total[city] += int(amount)
json.dump(total, open("total.json", "w"), sort_keys=True)
print(f"{len(total)} cities")
""",
    "report": """
import json
total = json.load(open("total.json"))
best = max(total, key=total.get)
open("report.md", "w").write(f"# Sales\\n\\nBest: {best}, with {total[best]}.\\n")
print("report.md written")
""",
}


def run_stage(bay: AgentBay, context: Context, name: str) -> None:
    """Run one stage in a fresh session of a strict client."""
    params = CreateSessionParams(labels={"stage": name}, context_syncs=[ContextSync(context.id, DATA)])
    session = bay.create(params).session
    assert session is not None
    try:
        session.file_system.write_file("stage.py", STAGES[name])
        print(f"stage {name}:", session.command.run("python3 ~/stage.py", cwd=DATA).check().stdout.strip())
    finally:
        session.delete(sync_context=True)  # returns when the files are in the context


def main() -> None:
    """Upload the raw data, run the stages, and read the report."""
    rows = [f"{random.choice(['Lima', 'Oslo', 'Pune'])},{random.randrange(100)}" for _ in range(500)]
    with AgentBay.local(strict=True) as bay:
        context = bay.context.create("sales").context
        assert context is not None
        with bay.session(CreateSessionParams(context_syncs=[ContextSync(context.id, DATA)])) as session:
            session.file_system.write_file(f"{DATA}/raw.csv", "\n".join([*rows, "Lima,many", "nonsense"]))
            session.context.sync()
        for name in STAGES:
            run_stage(bay, context, name)
        print("kept:", ", ".join(sorted(entry.file_name for entry in bay.context.list_files(context.id, DATA).entries)))


if __name__ == "__main__":
    main()
