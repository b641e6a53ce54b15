"""The package's names and signatures, and what importing it costs."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

import agentbay

PACKAGE = Path(agentbay.__file__).parent
PUBLIC = [name for name in agentbay.__all__ if name != "__version__"]


def test_all_is_sorted_and_complete() -> None:
    """`__all__` and `dir` list all public names, in order."""
    assert agentbay.__all__ == sorted(set(agentbay.__all__))
    assert dir(agentbay) == agentbay.__all__
    for name in agentbay.__all__:
        assert getattr(agentbay, name) is not None


def test_stub_says_the_same() -> None:
    """The type stub names each class from its home module."""
    found = {}
    for node in ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 1
            for alias in node.names:
                assert alias.asname == alias.name
                found[alias.name] = node.module
    assert found == agentbay._MODULE_BY_NAME


@pytest.mark.parametrize("name", PUBLIC)
def test_names_are_of_this_package(name: str) -> None:
    """A public name is the object that its home module defines."""
    value = getattr(agentbay, name)
    home = importlib.import_module(f"agentbay.{agentbay._MODULE_BY_NAME[name]}")
    assert getattr(home, name) is value
    for defined in get_args(value) or [value]:
        assert defined.__module__ == home.__name__
    assert inspect.getdoc(value)


def test_unknown_names() -> None:
    """An unknown name raises AttributeError, and ImportError when imported."""
    with pytest.raises(AttributeError, match="module 'agentbay' has no attribute 'Nonsense'"):
        agentbay.Nonsense  # noqa: B018
    with pytest.raises(ImportError):
        exec("from agentbay import Nonsense", {})
    with pytest.raises(AttributeError, match="get_logger"):
        agentbay.log  # noqa: B018


def test_star_import() -> None:
    """`from agentbay import *` gives every public name."""
    space: dict[str, Any] = {}
    exec("from agentbay import *", space)
    assert set(agentbay.__all__) <= set(space)


def test_types_are_shipped() -> None:
    """The package contains `py.typed`."""
    assert (PACKAGE / "py.typed").is_file()


def test_version() -> None:
    """The version equals that of the installed distribution."""
    from importlib.metadata import version

    assert agentbay.__version__ == version("agentbay-sdk")


PROBE = """
import json, logging, os, sys, threading, warnings

def state():
    known = logging.root.manager.loggerDict.values()
    loggers = [logging.root, *(logger for logger in known if isinstance(logger, logging.Logger))]
    return {
        "threads": threading.active_count(),
        "files": sorted(os.listdir("/proc/self/fd")) if sys.platform == "linux" else [],
        "handlers": sum(len(logger.handlers) for logger in loggers),
        "filters": [str(entry) for entry in warnings.filters],
        "environment": dict(os.environ),
        "here": os.listdir(),
    }

events = []
watched = ("socket.", "subprocess.", "os.fork")
sys.addaudithook(lambda event, args: events.append(event) if event.startswith(watched) else None)
before = state()
"""
REPORT = """
after = state()
print(json.dumps({"before": before, "after": after, "events": events, "modules": sorted(sys.modules)}))
"""


def probe(program: str, cwd: Path) -> dict[str, Any]:
    """Run a program in a fresh interpreter, and return what it changed."""
    command = [sys.executable, "-c", PROBE + program + REPORT]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=180, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.stderr == ""
    return found


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@linux
@pytest.mark.parametrize(
    "program", ["import agentbay", "from agentbay import AsyncAgentBay, CreateSessionParams", "from agentbay import *"]
)
def test_importing_leaves_nothing(program: str, tmp_path: Path) -> None:
    """Importing starts no thread, opens no file, and changes no global state."""
    found = probe(program, tmp_path)
    assert found["after"] == found["before"]
    assert found["events"] == []


def test_importing_loads_little(tmp_path: Path) -> None:
    """Importing the names does not import the libraries behind them."""
    loaded = set(probe("from agentbay import AsyncAgentBay, CreateSessionParams", tmp_path)["modules"])
    assert not loaded & {
        "cattrs",
        "httpx",
        "httpcore",
        "pathspec",
        "websockets",
        "h11",
        "anyio",
        "starlette",
        "uvicorn",
        "rich",
    }
    assert "agentbay._sync" not in loaded
    assert "agentbay.local" not in loaded
    assert not [name for name in probe("import agentbay", tmp_path)["modules"] if name.startswith("agentbay.")]


@linux
@pytest.mark.parametrize("kind", ["AgentBay", "AsyncAgentBay"])
@pytest.mark.parametrize("make", ["agentbay.{kind}('key')", "agentbay.{kind}.local()"])
def test_making_a_client_does_no_io(kind: str, make: str, tmp_path: Path) -> None:
    """Constructing a client opens no file or socket, and starts no thread."""
    (tmp_path / ".env").write_text("AGENTBAY_REGION_ID=us-east-1\n")
    found = probe(
        f"import agentbay\nclient = {make.format(kind=kind)}\nassert client.region_id == 'cn-hangzhou'", tmp_path
    )
    assert found["after"] == found["before"]
    assert found["events"] == []


REQUIRED = inspect.Parameter.empty
METHODS: dict[str, dict[str, Any]] = {
    "__init__": {"agent_bay": REQUIRED, "session_id": REQUIRED},
    "delete": {"sync_context": False},
    "set_labels": {"labels": REQUIRED},
    "get_labels": {},
    "info": {},
    "get_link": {"protocol_type": None, "port": None, "options": None},
    "list_mcp_tools": {"image_id": None},
    "call_mcp_tool": {
        "tool_name": REQUIRED,
        "args": REQUIRED,
        "read_timeout": None,
        "connect_timeout": None,
        "auto_gen_session": False,
    },
    "pause": {"timeout": 600, "poll_interval": 2.0},
    "pause_async": {},
    "resume": {"timeout": 600, "poll_interval": 2.0},
    "resume_async": {},
    "beta_pause": {"timeout": 600, "poll_interval": 2.0},
    "beta_resume": {"timeout": 600, "poll_interval": 2.0},
}
RETURNS = {
    "delete": "DeleteResult",
    "set_labels": "OperationResult",
    "get_labels": "OperationResult",
    "info": "OperationResult",
    "get_link": "OperationResult",
    "pause": "SessionPauseResult",
    "pause_async": "SessionPauseResult",
    "resume": "SessionResumeResult",
    "resume_async": "SessionResumeResult",
}
RESULTS: dict[str, dict[str, Any]] = {
    "SessionInfo": dict.fromkeys(
        (
            "session_id",
            "resource_url",
            "app_id",
            "auth_code",
            "connection_properties",
            "resource_id",
            "resource_type",
            "ticket",
        ),
        "",
    ),
    "OperationResult": {
        "request_id": "",
        "success": False,
        "data": None,
        "error_message": "",
        "code": "",
        "message": "",
        "http_status_code": 0,
    },
    "DeleteResult": {
        "request_id": "",
        "success": False,
        "error_message": "",
        "code": "",
        "message": "",
        "http_status_code": 0,
    },
    "BoolResult": {"request_id": "", "success": False, "data": None, "error_message": ""},
    "McpToolResult": {"request_id": "", "success": False, "data": "", "error_message": ""},
    "SessionResult": {"request_id": "", "success": False, "error_message": "", "session": None, "code": ""},
    "CommandResult": {
        "request_id": "",
        "success": False,
        "output": "",
        "error_message": "",
        "exit_code": 0,
        "stdout": "",
        "stderr": "",
        "trace_id": "",
    },
    "FileContentResult": {"request_id": "", "success": False, "content": "", "error_message": ""},
    "SessionStatusResult": {
        "request_id": "",
        "http_status_code": 0,
        "code": "",
        "success": False,
        "status": "",
        "error_message": "",
    },
}
for _name in ("SessionPauseResult", "SessionResumeResult"):
    RESULTS[_name] = {**RESULTS["DeleteResult"], "status": None}


@pytest.mark.parametrize("kind", [agentbay.AsyncSession, agentbay.Session])
@pytest.mark.parametrize(("name", "expected"), METHODS.items())
def test_methods_of_a_session(kind: type[Any], name: str, expected: dict[str, Any]) -> None:
    """Each session method has the contract's parameters and defaults, and then perhaps `timeout` by name."""
    method = getattr(kind, name)
    parameters = list(inspect.signature(method).parameters.values())[1:]
    if parameters and parameters[-1].kind is inspect.Parameter.KEYWORD_ONLY:
        added = parameters.pop()
        assert (added.name, added.default) == ("timeout", None)
    assert {parameter.name: parameter.default for parameter in parameters} == expected
    assert [parameter.name for parameter in parameters] == list(expected)
    assert {parameter.kind for parameter in parameters} <= {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    assert inspect.iscoroutinefunction(method) is (kind is agentbay.AsyncSession and name != "__init__")


def test_signature_of_a_class_that_was_not_used() -> None:
    """The signature of a class that attrs completes at its first use has no `self`."""
    program = "import inspect, agentbay; print(*inspect.signature(agentbay.SessionInfo).parameters)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("session_id resource_url ")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="inspect.markcoroutinefunction is new in Python 3.12")
def test_list_is_told_to_be_awaited() -> None:
    """The call for a page that can also be iterated over counts as a coroutine function."""
    assert inspect.iscoroutinefunction(agentbay.AsyncAgentBay.list)


@pytest.mark.parametrize("kind", [agentbay.AsyncSession, agentbay.Session])
@pytest.mark.parametrize(("name", "result"), RETURNS.items())
def test_results_of_the_methods(kind: type[Any], name: str, result: str) -> None:
    """Each method is annotated with the contract's result class."""
    assert inspect.signature(getattr(kind, name)).return_annotation == result


@pytest.mark.parametrize(("name", "expected"), RESULTS.items())
def test_results_are_made_by_position(name: str, expected: dict[str, Any]) -> None:
    """Each result class takes the contract's parameters by position."""
    kind = getattr(agentbay, name)
    positional = {
        parameter.name: parameter.default
        for parameter in inspect.signature(kind).parameters.values()
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    }
    assert list(positional) == list(expected)
    made = kind()
    assert {field: getattr(made, field) for field in expected} == expected


def awaitable(value: object) -> bool:
    made = inspect.unwrap(value) if callable(value) else value
    return inspect.iscoroutinefunction(made) or inspect.isasyncgenfunction(made)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name.startswith("Async")])
def test_twins_differ_only_in_awaiting(name: str) -> None:
    """Each asynchronous class has a synchronous twin with the same methods."""
    one, other = getattr(agentbay, name), getattr(agentbay, name.removeprefix("Async"))
    twins = {"aclose": "close", "__aenter__": "__enter__", "__aexit__": "__exit__"}
    members = {n: m for n, m in inspect.getmembers(one) if callable(m) and (n in twins or not n.startswith("_"))}
    for method_name, method in members.items():
        twin = getattr(other, twins.get(method_name, method_name))
        assert not awaitable(twin)
        mine, its = (list(inspect.signature(m).parameters) for m in (method, twin))
        assert mine == its, method_name
    assert {n for n in dir(other) if not n.startswith("_")} == {
        twins.get(n, n) for n in dir(one) if not n.startswith("_")
    }


def test_loops_are_not_touched() -> None:
    """A client can be constructed without an event loop."""
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    assert agentbay.AsyncAgentBay("key").api_key == "key"
