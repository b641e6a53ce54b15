"""Measure the client beside the official one and plain httpx, as ratios.

    scripts/bench [--rounds N]

Each figure is the median over the rounds; in each round the clients take turns, each in a process of its own, and
ratios are taken within the round. The result is `results/client.json`; `report.py` makes tables of it.
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
from pathlib import Path
from typing import Any

import trustme

HERE = Path(__file__).parent
RESULT = HERE / "results" / "client.json"
OFFICIAL = os.environ.get("AGENTBAY_OFFICIAL_PYTHON", "")
CLIENTS = ("ours", "official", "httpx")
IMPORTS = {
    "ours": "from agentbay import AsyncAgentBay, CreateSessionParams",
    "official": "from agentbay import AsyncAgentBay, CreateSessionParams",
    "httpx": "import httpx",
}
# scenario, scheme, milliseconds that an answer takes
RUNS = [
    *((f"{flavour} one by one", scheme, 0) for flavour in ("sync", "async") for scheme in ("http", "https")),
    *(("async 50 at once", scheme, 20) for scheme in ("http", "https")),
    *((f"fan-out, {how}", "https", 50) for how in ("one after the other", "32 threads", "async")),
    ("1,000 sessions", "http", 0),
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
    """Install this package alone, as its users have it, and return the Python of that environment.

    Beside the packages of a development environment httpx loads more: its command line, if that can be imported.
    """
    venv.create(f"{folder}/venv", with_pip=True)
    python = f"{folder}/venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(HERE.parent)], check=True)
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


def rounds(count: int, urls: dict[str, str], environment: dict[str, str], folder: str) -> list[dict[str, Any]]:
    """Run all measurements this many times."""
    control = urls["http"]
    found = []
    for number in range(count):
        row: dict[str, Any] = {"import": {c: {"ms": import_ms(c, environment, folder)} for c in CLIENTS}}
        urllib.request.urlopen(f"{control}/latency/0").read()
        for flavour in ("sync", "async"):
            row[f"first call, {flavour}"] = {
                c: first_call(c, flavour, urls["https"], environment, folder) for c in CLIENTS
            }
        for scenario, scheme, latency in RUNS:
            if number > 1 and scenario.startswith(("fan-out, one", "1,000")):
                continue  # ten seconds each, and steady
            urllib.request.urlopen(f"{control}/latency/{latency}").read()
            cell = row.setdefault(f"{scenario}, {scheme}", {})
            for client in CLIENTS:
                line = (str(HERE / "worker.py"), client, scenario, urls[scheme])
                cell[client] = json.loads(run(client, *line, environment=environment, folder=folder))
                cell[client]["connections"] = json.load(urllib.request.urlopen(f"{control}/latency/{latency}"))
            print(f"{number + 1}/{count} {scenario}, {scheme}", file=sys.stderr)
        found.append(row)
    return found


def medians(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure, and of its ratio to httpx."""
    table: dict[str, Any] = {}
    for name in rows[0]:
        cells = [row[name] for row in rows if name in row]
        table[name] = {}
        for client in CLIENTS:
            figures = {key: statistics.median(cell[client][key] for cell in cells) for key in cells[0][client]}
            main = next(iter(figures))
            figures["ratio"] = statistics.median(cell[client][main] / cell["httpx"][main] for cell in cells)
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
                rows = rounds(count, urls, environment, folder)
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
