"""A task from its Dockerfile: built once, tried by several agents at the same time, checked.

    python examples/terminal_task.py debian.tar

The argument is a root file system, such as `mmdebstrap --variant=minbase bookworm debian.tar` makes, or the name of
an image in a registry. `agentbay image build -t task:1 examples/task` builds the same from the command line. The agents
are scripts.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agentbay import AgentBay, CreateSessionParams, Session

TASK = Path(__file__).parent / "task"
AGENTS = {
    "hasty": ["ls", "sort access.log > report.txt"],
    "careful": [
        "cat /task/instruction.md",
        "while read -r host time page status; do echo $status; done < access.log | sort | uniq -c > counts",
        'while read -r count status; do echo "$status $count"; done < counts > "$REPORT"',
    ],
}


def build(bay: AgentBay, base: str) -> str:
    """Build the image of the task, and return its name."""
    if Path(base).exists():
        base = bay.images.import_file(base, name="base:1").name
    image = bay.images.build(TASK / "Dockerfile", build_args={"BASE": base}, name="task:1")
    print(f"{image.name} has {image.layers} layers")
    return image.name


def attempt(session: Session, commands: list[str]) -> bool:
    """Let an agent work, then run the tests, which it has not seen."""
    for command in commands:
        session.command.run(command, timeout=60).unwrap()
    session.file_system.push(TASK / "tests", "/tests")
    return session.command.run(["/tests/test.sh"]).success


def main(base: str) -> None:
    """Build the task, and give each agent a fork of one session."""
    with AgentBay.local() as bay, bay.session(CreateSessionParams(image_id=build(bay, base))) as session:
        forks = session.fork(len(AGENTS))
        with ThreadPoolExecutor() as pool:
            solved = list(pool.map(attempt, forks, AGENTS.values()))
        for agent, fork, is_solved in zip(AGENTS, forks, solved, strict=True):
            print(f"{agent}: {'solved' if is_solved else 'not solved'}")
            fork.delete()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
