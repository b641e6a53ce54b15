"""What importing costs: ours beside httpx, as a ratio in one run.

    python benchmarks/imports.py [rounds]

Each round starts fresh interpreters in turn; the figure is the median over the rounds of ours / `import httpx`, both
less the bare interpreter's start.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

PROGRAMS = {
    "bare": "pass",
    "httpx": "import httpx",
    "ours, async": "from agentbay import AsyncAgentBay, CreateSessionParams",
    "ours, sync": "from agentbay import AgentBay, CreateSessionParams",
    "ours, with a client made": "from agentbay import AsyncAgentBay; AsyncAgentBay('akm-x')",
}


def seconds(program: str) -> float:
    """Time one fresh interpreter."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    for program in PROGRAMS.values():
        seconds(program)  # write the byte code, fill the caches
    taken = [{name: seconds(program) for name, program in PROGRAMS.items()} for _ in range(rounds)]
    print(f"Python {sys.version.split()[0]}, {rounds} rounds; medians, less the bare start; ratio to httpx in pairs")
    for name in list(PROGRAMS)[1:]:
        own = [row[name] - row["bare"] for row in taken]
        ratios = [mine / (row["httpx"] - row["bare"]) for mine, row in zip(own, taken, strict=True)]
        print(f"{name:<28}{statistics.median(own) * 1000:8.1f} ms   {statistics.median(ratios):5.2f}")


if __name__ == "__main__":
    main()
