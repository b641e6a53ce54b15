"""What the start of a program and a call cost, as counts that are the same on every machine.

A budget is what is needed now and a little room. Raise one only for something that a program uses at its start.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from agentbay._wire.converter import unstructure
from agentbay._wire.schema import JSON
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
    """A first call makes the classes that it needs, and loads no HTTP library, and none for TLS without it."""
    program = """
import agentbay
with agentbay.AgentBay("key", agentbay.Config(endpoint=sys.argv[1])) as bay:
    bay.get("session-x").unwrap()
"""
    with Service(FOUND) as service:
        found = run(program, service.url)
    assert len(found["ours"]) <= 65
    assert len(found["made"]) <= 12, found["made"]
    unwanted = {"anyio", "asyncio", "cattrs", "h11", "httpcore", "httpx", "pathspec", "subprocess", "websockets"}
    unwanted |= {"certifi", "email", "random", "secrets", "ssl", "tempfile"}
    assert not unwanted & set(found["modules"])
    assert len(found["modules"]) <= 205  # some more of the standard library from Python 3.13 on


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
    unused = {"agentbay._sync", "agentbay._concurrency.synchronous"}
    unused |= {"anyio", "cattrs", "certifi", "email", "httpcore", "httpx", "secrets", "tempfile", "websockets"}
    assert not unused & set(found["modules"])
    assert len(found["modules"]) <= 250


# Counts functions, and operations of sockets and selectors, in a client that has made some calls.
_COUNT = """
import asyncio
import collections
import json
import sys
import agentbay

counts = collections.Counter()
WAITS = {"connect", "modify", "poll", "recv", "recv_into", "setsockopt"}
SENDS = {"send", "sendall", "sendmsg"}

def count(frame, event, function):
    counts["functions"] += event in ("call", "c_call")
    if event == "c_call":
        counts["sends"] += function.__name__ in SENDS
        counts["waits"] += function.__name__ in WAITS

def measure():
    with agentbay.AgentBay("key", agentbay.Config(endpoint=sys.argv[1])) as bay:
        for _ in range(3):
            bay.get("session-x").unwrap()
        sys.setprofile(count)
        bay.get("session-x")
        sys.setprofile(None)

async def measure_async(calls):
    async with agentbay.AsyncAgentBay("key", agentbay.Config(endpoint=sys.argv[1])) as bay:
        for _ in range(2):
            await asyncio.gather(*(bay.get("session-x") for _ in range(max(calls, 3))))
        sys.setprofile(count)
        await asyncio.gather(*(bay.get("session-x") for _ in range(calls)))
        sys.setprofile(None)

if sys.argv[2] == "sync":
    measure()
else:
    asyncio.run(measure_async(int(sys.argv[3])))
print(json.dumps(counts))
"""


def count_call(service: Service, flavour: str, calls: int = 1) -> dict[str, int]:
    """Count what calls of a client do, all at once."""
    command = [sys.executable, "-c", _COUNT, service.url, flavour, str(calls)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


@pytest.mark.parametrize(("flavour", "functions"), [("sync", 450), ("async", 650)])
def test_a_call(flavour: str, functions: int) -> None:
    """A call is sent by one operation in few bytes, and runs no more functions than it needs."""
    with Service(FOUND) as service:
        counts = count_call(service, flavour)
        sent = service.requests[-1]
    assert counts["sends"] == 1
    assert counts["waits"] <= 10, counts
    assert counts["functions"] <= functions, counts
    head = sum(len(name) + len(value) + len(": \r\n") for name, value in sent.headers.items())
    assert len(sent.target) + head + len(sent.body) <= 450


def test_many_calls_at_once() -> None:
    """A call costs the same however many are under way, also beyond the bound of the pool."""
    with Service(FOUND) as service:
        few, many = (count_call(service, "async", calls)["functions"] / calls for calls in (10, 300))
    assert many <= 1.2 * few, (few, many)


def test_files_opened_at_the_start() -> None:
    """A client opens no file at its start but the modules that it imports."""
    program = """
opened = []
sys.addaudithook(lambda event, given: event == "open" and opened.append(str(given[0])))
import agentbay
with agentbay.AgentBay("key", agentbay.Config(endpoint=sys.argv[1])) as bay:
    bay.get("session-x").unwrap()
print(json.dumps([name for name in opened if not name.endswith((".py", ".pyc", ".so"))]), file=sys.stderr)
"""
    with Service(FOUND) as service:
        command = [sys.executable, "-c", _REPORT + program, service.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stderr) == []


@pytest.mark.parametrize("program", ["from agentbay import *", "import agentbay.local.service"])
def test_no_class_is_made_by_importing(program: str) -> None:
    """Even all names together compile the methods of hardly any class."""
    assert len(run(program)["made"]) <= 16


@pytest.mark.skipif(sys.platform != "linux", reason="the runtime needs Linux")
def test_start_of_the_runtime() -> None:
    """The runtime loads no library before it is ready that only some sessions need."""
    program = """
from agentbay.local import lazy_imports, server
for part in server._PARTS_OF_THE_SERVICE:
    lazy_imports.import_now(part)
"""
    found = run(program)
    assert len(found["ours"]) <= 188
    assert len(found["modules"]) <= 445
    assert len(found["made"]) <= 14, found["made"]
    ours = {"contexts.download", "handlers.code", "handlers.pty", "images.importing", "kernels.kernel", "phone.adb"}
    later = {f"agentbay.local.{name}" for name in ours} | {"agentbay.local.dashboard.routes"}
    later |= {"IPython", "cattrs", "click", "email.parser", "h11", "http.client", "httpx", "importlib.metadata"}
    later |= {"importlib.resources", "multiprocessing", "numpy", "openai", "pandas", "pathspec", "rich", "tarfile"}
    later |= {"typer", "urllib.request", "uvicorn.supervisors", "websockets", "xml", "zipfile"}
    assert not later & set(found["modules"])


@pytest.mark.skipif(sys.platform != "linux", reason="the runtime needs Linux")
def test_warming_up_the_runtime() -> None:
    """Before its first session, the runtime makes the classes of hardly any tool."""
    found = run("from agentbay.local import service\nservice.warm_up()")
    assert len(found["made"]) <= 30, found["made"]
    assert "cattrs" not in found["modules"]


@pytest.mark.skipif(sys.platform != "linux", reason="the runtime needs Linux")
@pytest.mark.parametrize("image_id", ["linux_latest", "mobile_latest"])
def test_catalogue_is_as_its_classes_make_it(image_id: str) -> None:
    """The tools that a new session tells of are those of today; `python build_catalogue.py` writes them."""
    from agentbay.local.handlers import tool_calls

    made = JSON.encode(unstructure(tool_calls.tool_catalogue(image_id)))
    assert tool_calls.read_catalogue_file(image_id) == made


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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the end of a process is polled for")
def test_end_of_the_runtime_is_awaited() -> None:
    """A client notices the end of its private runtime without looking at intervals."""
    program = """
import time
sleeps, sleep = [], time.sleep
import agentbay
with agentbay.AgentBay.local() as bay:
    bay.list().unwrap()
    time.sleep = lambda seconds: (sleeps.append(seconds), sleep(seconds))
print(json.dumps(sleeps), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", _REPORT + program], capture_output=True, text=True, timeout=120, check=True
    )
    assert json.loads(done.stderr) == []
