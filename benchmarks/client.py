"""Measure the client beside the official one, httpx, aiohttp and bare sockets, as ratios to httpx.

    scripts/bench client [--rounds N]

Each figure is the median over the rounds; in each round the clients take turns, each in a process of its own, and
ratios are taken within the round. Where processor time of calls is counted, client and service share one processor: to
wake another one up costs more than a call of the leanest. The result is `results/client.json`; `report.py` makes
tables of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import trustme

HERE = Path(__file__).parent
RESULT = HERE / "results" / "client.json"
OFFICIAL = os.environ.get("AGENTBAY_OFFICIAL_PYTHON", "")
SDKS = ("ours", "official", "httpx")
SYNC = (*SDKS, "bare")
ASYNC = (*SDKS, "aiohttp", "bare")
MANY = ("ours", "httpx", "aiohttp", "bare")  # the official one takes 16 ms of processor time for each call
IMPORTS = {
    "ours": "from agentbay import AsyncAgentBay, CreateSessionParams",
    "official": "from agentbay import AsyncAgentBay, CreateSessionParams",
    "httpx": "import httpx",
}


class Run(NamedTuple):
    """A scenario of `worker.py`, and how the service answers in it."""

    scenario: str
    clients: tuple[str, ...]
    latency: int = 0  # milliseconds
    size: int = 100  # bytes that a command printed
    schemes: tuple[str, ...] = ("https",)
    rounds: int = 1000  # at most: the slow ones are steady
    is_pinned: bool = True


BOTH = ("http", "https")
RUNS = [
    Run("sync one by one", SYNC, schemes=BOTH),
    Run("async one by one", ASYNC, schemes=BOTH),
    Run("async 50 at once", ASYNC, latency=20, schemes=BOTH),
    Run("async 200 at once", MANY, latency=20),
    Run("async 1,000 at once", MANY, latency=20, rounds=3),
    Run("sync 1 MiB result", SYNC, size=1 << 20),
    Run("async 1 MiB result", MANY, size=1 << 20),
    Run("fan-out, one after the other", SYNC, latency=50, rounds=1, is_pinned=False),
    Run("fan-out, 32 threads", SYNC, latency=50, is_pinned=False),
    Run("fan-out, async", ASYNC, latency=50, is_pinned=False),
    Run("1,000 sessions", SDKS, schemes=("http",), rounds=2),
]
SIZES = """
import importlib.metadata as metadata, json, re, sys
left, seen, size = [sys.argv[1]], set(), 0
while left:
    name = re.split(r"[^\\w.-]", left.pop())[0].lower().replace("_", "-")
    if name in seen: continue
    seen.add(name)
    found = metadata.distribution(name)
    paths = [file.locate() for file in found.files or () if file.suffix != ".pyc"]
    size += sum(path.stat().st_size for path in paths if path.is_file())
    left += [need for need in found.requires or () if "extra ==" not in need and applies(need)]
print(json.dumps({"dists": len(seen), "mb": size / 1e6}))
"""
APPLIES = """
def applies(need):
    from pip._vendor.packaging.requirements import Requirement
    marker = Requirement(need).marker
    return marker is None or marker.evaluate({"extra": ""})
"""


def make_environment(folder: str) -> str:
    """Install this package as its users have it, and aiohttp, and return the Python of that environment.

    Beside the packages of a development environment httpx loads more: its command line, if that can be imported.
    """
    venv.create(f"{folder}/venv", with_pip=True)
    python = f"{folder}/venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(HERE.parent), "aiohttp"], check=True)
    return python


def run(client: str, *line: str, environment: dict[str, str], folder: str) -> str:
    """Run a program in the environment of a client."""
    python = OFFICIAL if client == "official" else f"{folder}/venv/bin/python"
    done = subprocess.run([python, *line], env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{client}: {' '.join(line)[:80]}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def import_ms(client: str, environment: dict[str, str], folder: str) -> float:
    """Return the processor time of the import alone, in milliseconds."""
    taken = []
    for program in ("pass", IMPORTS[client]):
        line = ("-c", f"{program}\nimport time; print(time.process_time() * 1000)")
        taken.append(float(run(client, *line, environment=environment, folder=folder).splitlines()[-1]))
    return taken[1] - taken[0]


def first_call(client: str, flavour: str, url: str, environment: dict[str, str], folder: str) -> dict[str, float]:
    """Return milliseconds of processor time from the start of a process to its first answer."""
    line = (str(HERE / "first_call.py"), client, flavour, url)
    return {"ms": float(run(client, *line, environment=environment, folder=folder).splitlines()[-1])}


def sizes(environment: dict[str, str], folder: str) -> dict[str, Any]:
    """Return the number and size of the distributions in an installation."""
    found = {}
    for client, name in (("official", "wuying-agentbay-sdk"), ("httpx", "httpx"), ("ours", "agentbay-sdk")):
        program = APPLIES + SIZES
        found[client] = json.loads(run(client, "-c", program, name, environment=environment, folder=folder))
    return found


class Bench:
    """Runs the measurements against the service's addresses."""

    def __init__(self, stub: int, urls: dict[str, str], environment: dict[str, str], folder: str) -> None:
        self.stub, self.urls, self.environment, self.folder = stub, urls, environment, folder

    def answers(self, latency: int = 0, size: int = 100) -> int:
        """Set how the service answers, and return how many connections it had meanwhile."""
        with urllib.request.urlopen(f"{self.urls['http']}/answers/{latency}/{size}") as answer:
            return int(json.load(answer))

    def starts(self) -> dict[str, Any]:
        """Measure the starts of processes."""
        self.answers()
        where = {"environment": self.environment, "folder": self.folder}
        row: dict[str, Any] = {"import": {client: {"ms": import_ms(client, **where)} for client in SDKS}}
        for flavour, clients in (("sync", SDKS), ("async", (*SDKS, "aiohttp"))):
            taken = {client: first_call(client, flavour, self.urls["https"], **where) for client in clients}
            row[f"first call, {flavour}"] = taken
        return row

    def measure(self, wanted: Run, scheme: str) -> dict[str, Any]:
        """Let each client run a scenario."""
        cell: dict[str, Any] = {}
        self.answers(wanted.latency, wanted.size)
        with pinned(self.stub) if wanted.is_pinned else nullcontext():
            for client in wanted.clients:
                line = (str(HERE / "worker.py"), client, wanted.scenario, self.urls[scheme])
                cell[client] = json.loads(run(client, *line, environment=self.environment, folder=self.folder))
                cell[client]["connections"] = self.answers(wanted.latency, wanted.size)
        return cell

    def rounds(self, count: int) -> list[dict[str, Any]]:
        """Run all measurements this many times."""
        found = []
        for number in range(count):
            found.append(self.starts())
            for wanted in RUNS:
                for scheme in wanted.schemes if number < wanted.rounds else ():
                    found[-1][f"{wanted.scenario}, {scheme}"] = self.measure(wanted, scheme)
                    print(f"{number + 1}/{count} {wanted.scenario}, {scheme}", file=sys.stderr)
        return found


@contextmanager
def pinned(stub: int) -> Iterator[None]:
    """Keep the service, and processes that are started here, on one processor."""
    everywhere = os.sched_getaffinity(0)
    one = {min(everywhere)}
    for pid in (0, stub):
        os.sched_setaffinity(pid, one)
    try:
        yield
    finally:
        for pid in (0, stub):
            os.sched_setaffinity(pid, everywhere)


def medians(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure, and of its ratio to httpx, with its range."""
    table: dict[str, Any] = {}
    for name in rows[0]:
        cells = [row[name] for row in rows if name in row]
        table[name] = {}
        for client in cells[0]:
            figures = {key: statistics.median(cell[client][key] for cell in cells) for key in cells[0][client]}
            main = next(iter(figures))
            ratios = sorted(cell[client][main] / cell["httpx"][main] for cell in cells)
            figures |= {"ratio": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]}
            table[name][client] = {key: round(value, 3) for key, value in figures.items()}
    return table


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    count = parser.parse_args().rounds
    if not OFFICIAL:
        raise SystemExit("AGENTBAY_OFFICIAL_PYTHON is not set: run scripts/bench")
    authority, began = trustme.CA(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        authority.cert_pem.write_to_path(f"{folder}/ca.pem")
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(f"{folder}/server.pem")
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environment |= {"SSL_CERT_FILE": f"{folder}/ca.pem", "REQUESTS_CA_BUNDLE": f"{folder}/ca.pem"}
        environment |= {"AGENTBAY_LOG_LEVEL": "ERROR"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # users do not compile the package at each start
        make_environment(folder)
        line = [sys.executable, str(HERE / "stub.py"), f"{folder}/server.pem"]
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as stub:
            assert stub.stdout is not None
            plain, tls = stub.stdout.readline().split()
            urls = {"http": f"http://127.0.0.1:{plain}", "https": f"https://127.0.0.1:{tls}"}
            try:
                rows = Bench(stub.pid, urls, environment, folder).rounds(count)
            finally:
                stub.terminate()
        table = {**medians(rows), "installed": sizes(environment, folder)}
    machine = f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {platform.system()} {platform.machine()}"
    load = [round(began, 1), round(os.getloadavg()[0], 1)]
    RESULT.write_text(
        json.dumps({"machine": machine, "rounds": count, "load": load, "figures": table}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
