"""What the start of a program costs, as counts that are the same on every machine.

A budget is what is needed now and a little room. Raise one only for something that a program uses at its start.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.scripted import Service, ok

FOUND = ok({"SessionId": "session-x", "Status": "RUNNING"})

# Tells what was loaded, and which of our attrs classes got their methods.
_REPORT = """
import json
import sys

def report():
    modules = sorted(sys.modules)
    ours = [name for name in modules if name.startswith("agentbay")]
    kinds = {kind for name in ours for kind in vars(sys.modules[name]).values() if isinstance(kind, type)}
    made = [kind.__name__ for kind in kinds if isinstance(vars(kind).get("__attrs_attrs__"), tuple)]
    print(json.dumps({"modules": modules, "ours": ours, "made": sorted(made)}))
"""


def run(program: str, *args: str) -> dict[str, Any]:
    """Run a program that ends with `report()` in a fresh interpreter."""
    command = [sys.executable, "-c", _REPORT + program + "\nreport()", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_importing_a_client() -> None:
    """Importing a client makes next to no classes, and loads no asyncio for the synchronous one."""
    found = run("from agentbay import AgentBay")
    assert len(found["ours"]) <= 50
    assert len(found["made"]) <= 3, found["made"]
    assert not {"asyncio", "difflib", "httpx"} & set(found["modules"])
    assert "asyncio" not in run("import agentbay")["modules"]


def test_first_call() -> None:
    """A first call makes the classes that it needs, and loads no HTTP library but h11."""
    program = """
import agentbay
with agentbay.AgentBay("key", agentbay.Config(endpoint=sys.argv[1])) as bay:
    bay.get("session-x").unwrap()
"""
    with Service(FOUND) as service:
        found = run(program, service.url)
    assert len(found["ours"]) <= 65
    assert len(found["made"]) <= 12, found["made"]
    assert not {"anyio", "asyncio", "httpcore", "httpx", "pathspec", "subprocess", "websockets"} & set(found["modules"])


def test_first_asynchronous_call() -> None:
    """The first asynchronous call does not load the other flavour."""
    program = """
import asyncio
import agentbay

async def main():
    async with agentbay.AsyncAgentBay("key", agentbay.Config(endpoint=sys.argv[1])) as bay:
        (await bay.get("session-x")).unwrap()

asyncio.run(main())
"""
    with Service(FOUND) as service:
        found = run(program, service.url)
    assert len(found["ours"]) <= 65
    assert len(found["made"]) <= 12, found["made"]
    unused = {"agentbay._sync", "agentbay._concurrency.synchronous", "anyio", "httpcore", "httpx", "websockets"}
    assert not unused & set(found["modules"])


@pytest.mark.parametrize("program", ["from agentbay import *", "import agentbay.local.service"])
def test_no_class_is_made_by_importing(program: str) -> None:
    """Even all names together compile the methods of hardly any class."""
    assert len(run(program)["made"]) <= 16


@pytest.mark.skipif(sys.platform != "linux", reason="the runtime needs Linux")
def test_start_of_the_runtime() -> None:
    """The runtime loads no library before it is ready that only some sessions need."""
    found = run("import agentbay.local.server, agentbay.local.service")
    assert len(found["ours"]) <= 235
    assert len(found["made"]) <= 14, found["made"]
    later = {"IPython", "agentbay.local.dashboard.routes", "email.parser", "http.client", "httpx", "numpy", "openai"}
    later |= {
        "agentbay.local.images.importing",
        "click",
        "importlib.metadata",
        "multiprocessing",
        "uvicorn.supervisors",
    }
    assert not (later | {"pandas", "pathspec", "rich", "typer", "websockets", "xml"}) & set(found["modules"])


@pytest.mark.skipif(sys.platform != "linux", reason="the runtime needs Linux")
def test_uvicorn_stays_whole() -> None:
    """After the runtime has imported the server alone, the rest of uvicorn is there on demand."""
    program = """
from agentbay.local.http import web_server
import uvicorn
from uvicorn.server import Server
assert uvicorn.Server is Server and callable(uvicorn.run) and not hasattr(uvicorn, "nothing")
assert sys.modules["uvicorn.main"].Server is Server
"""
    run(program)


def test_start_of_the_command_line() -> None:
    """A command loads no module of another one, and neither what draws help pages nor what converts values."""
    program = """
from agentbay.cli import main
main(sys.argv[1:])
sys.stdout = sys.__stdout__
"""
    quiet = "import io; sys.stdout = io.StringIO()" + program
    found = run(quiet, "session", "list", "--endpoint", "http://127.0.0.1:9")
    assert len(found["ours"]) <= 40, found["ours"]
    others = {f"agentbay.cli.{name}" for name in ("attach", "command", "context", "jobs", "local", "run", "transfer")}
    assert not (others | {"asyncio", "httpx", "pydantic", "rich", "agentbay.local"}) & set(found["modules"])

    found = run(quiet, "--help")
    assert len([name for name in found["ours"] if name.startswith("agentbay.cli")]) <= 6, found["ours"]
    assert not {"agentbay.config", "markdown_it", "pydantic", "pygments"} & set(found["modules"])
