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
GROWTH = json.loads((ROOT / "benchmarks" / "results" / "growth.json").read_text(encoding="utf-8"))
CLIENTS = ("ours", "official", "httpx")
NAMES = {"ours": "agentbay", "official": "official", "httpx": "httpx", "aiohttp": "aiohttp", "bare": "bare"}
PAGE = """\
# Benchmarks

What the client costs, beside the official package (`wuying-agentbay-sdk` 0.22.3), plain httpx and aiohttp used as
their documentation shows, and the least that Python can do ("bare": an asyncio protocol, or a socket, which writes
prepared bytes and looks for the end of the answer). `scripts/bench` makes tables and pictures anew; the figures are
those of `benchmarks/results/client.json`: {machine}, {rounds} rounds, medians, at a load of {load}.

![Ratios to httpx of processor time, duration and size](plots/ratios.svg)

Absolute times are those of that machine under whatever else it did; ratios are taken within a round, where all had the
same, and are what to compare. The lines in the picture go from the least to the most of the rounds.

## Calls

Processor time of the client for one command's call over HTTP and HTTPS, with a service that answers at once; of many at
once, one that takes 20 ms. Client and service share one processor. Each client may open as many connections as there
are calls at once. The official package trusts one authority here: with a system's whole list, each of its asynchronous
calls costs more, since it reads the list for each.

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

## How costs grow

Through the client, on the local runtime, with one session where nothing else is said; the figures are those of
`benchmarks/results/growth.json`: {growth_machine}, on {growth_date}, at a load of {growth_load}. All axes are
logarithmic. Dotted lines grow in proportion, so a line that is flatter than its dotted one grows less than that.

![Durations by sessions, calls at once, bytes, files, labels and events](plots/growth.svg)

"client" is the processor time that the client takes for all calls at once; "until the last answer" is the duration. The
events are those of files that a command makes, from its start until the last is reported.

Other results, each with its date and load, are in `benchmarks/results`: those of the
[runtime](../benchmarks/results/runtime.txt), of [code](../benchmarks/results/code.txt),
[browsers and desktops](../benchmarks/results/screens.txt), [transfers](../benchmarks/results/transfers.txt),
[contexts](../benchmarks/results/contexts.txt), [images](../benchmarks/results/images.txt) and
[neighbours](../benchmarks/results/neighbours.txt).
"""


def number(value: float) -> str:
    """Return a number with three digits, or a whole number unchanged."""
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cells(cell: dict[str, Any], key: str, clients: tuple[str, ...]) -> list[str]:
    """Return the figures of clients."""
    return [number(cell[client][key]) if client in cell else "–" for client in clients]


def table(head: str, rows: list[tuple[str, dict[str, Any], str]], clients: tuple[str, ...] = CLIENTS) -> str:
    """Return a table with one row a measurement, and our ratio to httpx."""
    names = " | ".join(NAMES[client] for client in clients)
    lines = [f"| {head} | {names} | agentbay / httpx |", "|---|" + "---:|" * (len(clients) + 1)]
    for name, cell, key in rows:
        ratio = number(cell["ours"].get("ratio", cell["ours"][key] / cell["httpx"][key]))
        lines.append(f"| {name} | {' | '.join([*cells(cell, key, clients), ratio])} |")
    return "\n".join(lines)


def fan_out() -> str:
    """Return seconds and connections of the lifecycles."""
    lines = [f"| 32 lifecycles | {' | '.join(NAMES.values())} |", "|---|" + "---:|" * len(NAMES)]
    found = {name: FIGURES[f"fan-out, {name}, https"] for name in ("one after the other", "32 threads", "async")}
    for name, cell in found.items():
        lines.append(f"| {name}, s | {' | '.join(cells(cell, 's', tuple(NAMES)))} |")
    base, many = found["one after the other"], found["async"]
    gains = [f"**{number(base[name]['s'] / many[name]['s'])}×**" if name in base else "–" for name in NAMES]
    lines.append(f"| gain of async | {' | '.join(gains)} |")
    return "\n".join(
        [*lines, f"| connections opened by async | {' | '.join(cells(many, 'connections', tuple(NAMES)))} |"]
    )


def parts() -> dict[str, str]:
    """Return all tables."""
    calls = [name for name in FIGURES if any(part in name for part in (" one by one", " at once", " 1 MiB"))]
    starts = [(flavour, FIGURES[f"first call, {flavour}"], "ms") for flavour in ("sync", "async")]
    installed, memory = FIGURES["installed"], FIGURES["1,000 sessions, http"]
    rest = [
        ("import, ms of processor time", FIGURES["import"], "ms"),
        ("1,000 session objects, MB", memory, "mb"),
        ("distributions installed", installed, "dists"),
        ("size installed, MB", installed, "mb"),
    ]
    return {
        "calls": table("µs of processor time", [(name, FIGURES[name], "cpu_us") for name in calls], tuple(NAMES)),
        "fan-out": fan_out(),
        "start": table("ms of processor time", starts, (*CLIENTS, "aiohttp")),
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
        growth_machine=GROWTH["machine"],
        growth_date=GROWTH["date"],
        growth_load=" to ".join(str(pick(one["load"] for one in GROWTH["figures"].values())) for pick in (min, max)),
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
