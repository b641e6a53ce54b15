"""Write the tables of `results/client.json` into `docs/benchmarks.md` and other pages.

    python benchmarks/report.py [--check]

So each figure in the documentation is one of the committed result.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FOUND = json.loads((ROOT / "benchmarks" / "results" / "client.json").read_text(encoding="utf-8"))
FIGURES: dict[str, Any] = FOUND["figures"]
CLIENTS = ("ours", "official", "httpx")
PAGE = """\
# Benchmarks

What the client costs, beside the official package (`wuying-agentbay-sdk` 0.22.3) and plain httpx used as its
documentation shows. `scripts/bench` makes these tables anew; the figures are those of
`benchmarks/results/client.json`: {machine}, {rounds} rounds, medians, at a load of {load}.

Absolute times are those of that machine under whatever else it did; ratios are taken within a round, where all three
had the same, and are what to compare.

## Calls

Processor time of the client for one command's call, with a service that answers at once; with 50 tasks, one that takes
20 ms. The official package trusts one authority here: with a system's whole list, each of its asynchronous calls costs
more, since it reads the list for each.

{calls}

## Many sessions at once

32 lifecycles, each of which creates a session, makes three calls and deletes it, looking whether it is gone; the
service takes 50 ms for each answer, over HTTPS.

{fan_out}

## The start of a program

Processor time of a whole process, from its start to the first answer of a service over HTTPS: imports, the client, the
TLS context and one call. Each client has an environment of its own with nothing else in it.

{start}

## At rest

{rest}

The memory that plain httpx takes is that of the sessions' ids alone.
"""


def number(value: float) -> str:
    """Return a number with three digits, or a whole number unchanged."""
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(head: str, rows: list[tuple[str, dict[str, Any], str]]) -> str:
    """Return a table with one row a measurement, and ratios to httpx."""
    lines = [f"| {head} | agentbay | official | httpx | agentbay / httpx | official / httpx |", "|---|" + "---:|" * 5]
    for name, cell, key in rows:
        figures = [number(cell[client][key]) for client in CLIENTS]
        ratios = [number(cell[client].get("ratio", cell[client][key] / cell["httpx"][key])) for client in CLIENTS[:2]]
        lines.append(f"| {name} | {' | '.join([*figures, *ratios])} |")
    return "\n".join(lines)


def fan_out() -> str:
    """Return seconds and connections of the lifecycles."""
    lines = ["| 32 lifecycles | agentbay | official | httpx |", "|---|---:|---:|---:|"]
    cells = {name: FIGURES[f"fan-out, {name}, https"] for name in ("one after the other", "32 threads", "async")}
    for name, cell in cells.items():
        lines.append(f"| {name}, s | {' | '.join(number(cell[client]['s']) for client in CLIENTS)} |")
    base, many = cells["one after the other"], cells["async"]
    gain = " | ".join(f"**{number(base[client]['s'] / many[client]['s'])}×**" for client in CLIENTS)
    lines.append(f"| gain of async | {gain} |")
    counts = " | ".join(f"{many[client]['connections']:.0f}" for client in CLIENTS)
    return "\n".join([*lines, f"| connections opened by async | {counts} |"])


def parts() -> dict[str, str]:
    """Return all tables."""
    calls = [name for name in FIGURES if " one by one" in name or " at once" in name]
    installed, memory = FIGURES["installed"], FIGURES["1,000 sessions, http"]
    rest = [
        ("import, ms of processor time", FIGURES["import"], "ms"),
        ("1,000 session objects, MB", memory, "mb"),
        ("distributions installed", installed, "dists"),
        ("size installed, MB", installed, "mb"),
    ]
    return {
        "calls": table("µs of processor time", [(name, FIGURES[name], "cpu_us") for name in calls]),
        "fan-out": fan_out(),
        "start": table("ms of processor time", [(f, FIGURES[f"first call, {f}"], "ms") for f in ("sync", "async")]),
        "rest": table("", rest),
        "peers": peers(),
    }


def peers() -> str:
    """Return the rows that the README shows."""
    tls, many = FIGURES["async one by one, https"], FIGURES["fan-out, async, https"]
    rows = [
        ("from start to first answer, processor time", FIGURES["first call, async"], "ms", "ms"),
        ("an asynchronous call, processor time", tls, "cpu_us", "µs"),
        ("32 sessions at once, six calls each at 50 ms", many, "s", "s"),
        ("TLS connections for that", many, "connections", ""),
        ("installed with all it needs", FIGURES["installed"], "mb", "MB"),
    ]
    lines = ["| measured | agentbay | official | httpx alone |", "|---|---:|---:|---:|"]
    for name, cell, key, unit in rows:
        figures = [f"{number(cell[c][key])} {unit}".strip() for c in CLIENTS]
        lines.append(f"| {name} | {' | '.join(figures)} |")
    return "\n".join(lines)


def filled(text: str, tables: dict[str, str]) -> str:
    """Return a page with its tables filled in."""
    marks = re.compile(r"(<!-- bench: ([\w-]+) -->\n).*?(<!-- /bench -->)", re.DOTALL)
    return marks.sub(lambda mark: f"{mark[1]}{tables[mark[2]]}\n{mark[3]}", text)


def main() -> int:
    """Write or check the tables, and return the exit code."""
    tables = parts()
    page = PAGE.format(
        machine=FOUND["machine"],
        rounds=FOUND["rounds"],
        load=" to ".join(map(str, FOUND["load"])),
        **{k.replace("-", "_"): v for k, v in tables.items()},
    )
    made = {ROOT / "docs" / "benchmarks.md": page}
    for path in (ROOT / "README.md", ROOT / "docs" / "sync-async.md"):
        made[path] = filled(path.read_text(encoding="utf-8"), tables)
    wrong = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in wrong:
        if "--check" in sys.argv[1:]:
            print(f"{path.relative_to(ROOT)}: run benchmarks/report.py")
        else:
            path.write_text(made[path], encoding="utf-8")
    return 1 if wrong and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
