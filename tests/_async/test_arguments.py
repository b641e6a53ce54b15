"""Wrong arguments are refused by the caller's own names, before anything is sent."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

import agentbay
from agentbay import (
    AgentBayError,
    AsyncAgent,
    AsyncAgentBay,
    AsyncBrowser,
    AsyncBrowserOperator,
    AsyncCode,
    AsyncCommand,
    AsyncComputer,
    AsyncContextManager,
    AsyncContextService,
    AsyncEnv,
    AsyncExtensionsService,
    AsyncFileSystem,
    AsyncGit,
    AsyncMobile,
    AsyncOss,
    AsyncPty,
    AsyncSession,
    BetaContextMount,
    Config,
    ContextSync,
    CreateSessionParams,
    InvalidArgumentError,
    LifecyclePolicy,
    SyncPolicy,
)
from agentbay._arguments import ArgumentCheck
from tests.scripted import Service, silence

SERVICES = (
    AsyncAgent.Browser, AsyncAgent.Computer, AsyncAgent.Mobile, AsyncAgentBay, AsyncBrowser, AsyncBrowserOperator,
    AsyncCode, AsyncCommand, AsyncComputer, AsyncContextManager, AsyncContextService, AsyncEnv,
    AsyncExtensionsService, AsyncFileSystem, AsyncGit, AsyncMobile, AsyncOss, AsyncPty, AsyncSession,
)  # fmt: skip
PARAMETERS = (BetaContextMount, Config, ContextSync, CreateSessionParams, LifecyclePolicy, SyncPolicy)
# Parameters whose contract has an answer of its own, and those that take anything or a type of httpx's.
OWN_ANSWERS = {"cols", "content", "envs", "http_client", "idle_release_timeout", "keys", "labels", "max_runtime",
               "output_schema", "page", "rows", "timeout"}  # fmt: skip


class Wrong:
    """A value that fits no parameter."""


def public_functions() -> list[Any]:
    """Return the public methods of the services, and the constructors of the parameter classes."""
    methods = [
        pytest.param(member, id=f"{cls.__name__}.{name}")
        for cls in SERVICES
        for name, member in inspect.getmembers(cls)
        if callable(member) and (name == "__init__" or not name.startswith("_"))
        if inspect.isfunction(member) and len(inspect.signature(member).parameters) > 1
        if (cls is AsyncAgentBay or name != "__init__")
    ]
    return methods + [pytest.param(cls.__init__, id=cls.__name__) for cls in PARAMETERS]


@pytest.mark.parametrize("function", public_functions())
def test_every_parameter_is_checked(function: Any) -> None:
    """Every public parameter refuses a value of a foreign type by its name."""
    check: ArgumentCheck = function.argument_check
    for name in check.names:
        if name in OWN_ANSWERS or (name == "timeout_ms" and function is Config.__init__):
            continue
        with pytest.raises(InvalidArgumentError) as caught:
            check((), {name: Wrong()})
        assert str(caught.value).startswith(f"{name} must be ")
        assert "not of type Wrong" in str(caught.value)


@pytest.mark.parametrize("name", ["connect_timeout", "read_timeout", "timeout"])
def test_fractions_of_times(name: str) -> None:
    """A time that the contract annotates as `int` may be a fraction, but no string."""
    function: Any = AsyncSession.pause if name == "timeout" else AsyncSession.call_mcp_tool
    function.argument_check((), {name: 0.5})
    with pytest.raises(InvalidArgumentError, match=f"{name} must be a number(?: or None)?, not '5'"):
        function.argument_check((), {name: "5"})


@pytest.fixture(scope="module")
async def session(bay: AsyncAgentBay) -> AsyncIterator[AsyncSession]:
    """A session with one file."""
    async with bay.session() as session:
        (await session.file_system.write_file("x", "text")).unwrap()
        yield session


def other_client() -> Any:
    """Return an httpx client of the other flavour."""
    names = {"Async" + "Client", "Client"} - {httpx.AsyncClient.__name__}  # in two parts, which stay as they are
    return getattr(httpx, names.pop())()


Call = Callable[[AsyncAgentBay, AsyncSession], Any]
CALLS: list[tuple[str, Call]] = [
    ("session must be an? ", lambda bay, s: bay.pause("no-such-id")),  # type: ignore[arg-type]
    (r"session must be an? \w+ or a string, not None", lambda bay, s: bay.delete(None)),  # type: ignore[arg-type]
    (r"get\(session_id\)\.session", lambda bay, s: bay.pause("no-such-id")),  # type: ignore[arg-type]
    ("session_id must be a string, not 5", lambda bay, s: bay.get(5)),  # type: ignore[arg-type]
    ("labels must be a dict of strings or None, not 'a'", lambda bay, s: bay.list("a")),  # type: ignore[arg-type]
    ("limit: must be 1 to 100, not 1000", lambda bay, s: bay.list(limit=1000)),
    ("policy_id: ", lambda bay, s: bay.create(CreateSessionParams(policy_id="internet"))),
    ("Unsupported language", lambda bay, s: s.code.run_code("1+1")),
    (r"command\[1\] must be a string, not 5", lambda bay, s: s.command.run(["ls", 5])),  # type: ignore[list-item]
    ("command must be a command line, or a list that begins", lambda bay, s: s.command.run([])),
    (r"command\[1\] must be a string without NUL", lambda bay, s: s.command.run(["ls", "a\0"])),
    ("stdin must be a string or bytes or None", lambda bay, s: s.command.run("cat", stdin=5)),  # type: ignore[arg-type]
    ("command must be a string or a list of strings, not of type bytes", lambda bay, s: s.command.run(b"ls")),  # type: ignore[arg-type]
    ("command must be a string without NUL", lambda bay, s: s.command.run("ls \0")),
    (r"command must be a string of whole characters, not one with '\\ud83d' at position 3",
     lambda bay, s: s.command.run("ls \ud83d")),
    ("envs must be a dict", lambda bay, s: s.command.run("ls", envs=["A=1"])),  # type: ignore[arg-type]
    (r"envs\['A'\] must be a string without NUL", lambda bay, s: s.command.run("ls", envs={"A": "\0"})),
    ("envs must not have 'A=' as a name", lambda bay, s: s.command.run("ls", envs={"A=": "1"})),
    (r"envs\['A'\] has 200,002 bytes", lambda bay, s: s.env.set({"A": "x" * 200_000})),
    (r"envs\['A'\] must be a string of whole", lambda bay, s: s.pty.create(envs={"A": "\ud83d"})),
    ("timeout_ms must be positive and finite, not 0", lambda bay, s: s.command.run("ls", timeout_ms=0)),
    ("timeout_ms must be positive and finite, not nan", lambda bay, s: s.command.run("ls", timeout_ms=float("nan"))),
    (r"timeout_ms must be a number or None, not True \(bool\)", lambda bay, s: s.command.run("ls", timeout_ms=True)),
    ("must be https or wss", lambda bay, s: s.get_link("http", 30100)),
    (r"edits\[0\] must be a dict of strings.*oldText",
     lambda bay, s: s.file_system.edit_file("x", [("a", "b")])),  # type: ignore[list-item]
    ("local must be a path, such as '.' for the directory itself, not ''", lambda bay, s: s.file_system.push("", "x")),
    ("remote must be a path", lambda bay, s: s.file_system.push(".", "", delete=True)),
    ("local must be a path", lambda bay, s: s.file_system.pull("there", "", delete=True)),
    ("local_path must be a path", lambda bay, s: s.file_system.upload_file("", "there")),
    ("paths must be a list of strings, not 'x'", lambda bay, s: s.file_system.read_multiple_files("x")),
    (r"paths\[1\] must be a string, not 5", lambda bay, s: s.file_system.read_multiple_files(["x", 5])),  # type: ignore[list-item]
    ("shell must be a string or None, not 5", lambda bay, s: s.pty.create(shell=5)),  # type: ignore[arg-type]
    ("cols=80", lambda bay, s: s.pty.create(cols="80")),  # type: ignore[arg-type]
    ("repo_path must be a string, not None", lambda bay, s: s.git.status(None)),  # type: ignore[arg-type]
    ("args.paths: must be a list, not str", lambda bay, s: s.call_mcp_tool("read_multiple_files", {"paths": "x"})),
]  # fmt: skip


@pytest.mark.parametrize(("message", "call"), CALLS, ids=[message for message, _ in CALLS])
async def test_wrong_arguments(bay: AsyncAgentBay, session: AsyncSession, message: str, call: Call) -> None:
    """A wrong argument is refused by its parameter's name, raised or in the result."""
    try:
        outcome = await call(bay, session)
    except (AgentBayError, ValueError) as error:
        refused: BaseException = error
    else:
        refused = outcome.exception
    with pytest.raises((AgentBayError, ValueError), match=message):
        raise refused


async def test_nothing_is_sent() -> None:
    """A call with a wrong argument sends no request."""
    with Service(silence) as service:
        async with AsyncAgentBay("akm-test", Config(endpoint=service.url)) as bay:
            assert not await bay.get(5)  # type: ignore[arg-type]
            assert not await bay.list(page="2")  # type: ignore[arg-type]
            assert not await bay.create(5)  # type: ignore[arg-type]
            assert not await AsyncSession(bay, "s").command.run(5)  # type: ignore[arg-type]
        assert service.requests == []


@pytest.mark.parametrize(
    ("message", "make"),
    [
        ("cfg must be a Config or None", lambda: AsyncAgentBay("k", "http://127.0.0.1:9")),  # type: ignore[arg-type]
        ("cfg must be a Config or None", lambda: AsyncAgentBay("k", {"endpoint": "x"})),  # type: ignore[arg-type]
        ("api_key must be a string, not of type int", lambda: AsyncAgentBay(5)),  # type: ignore[arg-type]
        ("api_key must be a string", lambda: AsyncAgentBay(b"k")),  # type: ignore[arg-type]
        ("endpoint 'ftp://x'", lambda: AsyncAgentBay("k", Config(endpoint="ftp://x"))),
        ("max_retries must be a whole number", lambda: AsyncAgentBay("k", max_retries="2")),  # type: ignore[arg-type]
        ("max_retries must be 0 or more", lambda: AsyncAgentBay("k", max_retries=-1)),
        ("http_client must be an httpx", lambda: AsyncAgentBay("k", http_client=other_client())),
        ("proxy must be the URL of a proxy, not 'foo'", lambda: AsyncAgentBay("k", proxy="foo")),
        ("proxy must be the URL of a proxy, not 'foo://…p:1'", lambda: AsyncAgentBay("k", proxy="foo://u:secret@p:1")),
        ("path must be absolute", lambda: ContextSync("id", "data")),
        ("labels must be a dict of strings", lambda: CreateSessionParams(labels=["a"])),  # type: ignore[arg-type]
        (r"labels\['a'\] must be a string, not 1", lambda: CreateSessionParams(labels={"a": 1})),  # type: ignore[dict-item]
        (r"context_syncs\[0\] must be a ContextSync",
         lambda: CreateSessionParams(context_syncs=["id"])),  # type: ignore[list-item]
    ],
)  # fmt: skip
def test_wrong_constructor_arguments(message: str, make: Callable[[], object]) -> None:
    """A wrong argument of a constructor is refused at once."""
    with pytest.raises((InvalidArgumentError, ValueError), match=message):
        make()


async def test_unknown_names(session: AsyncSession) -> None:
    """An unknown parameter is a TypeError that names the closest one."""
    run: Any = session.command.run
    with pytest.raises(TypeError, match="no parameter 'time_out': did you mean 'timeout'"):
        await run("ls", time_out=5)
    with pytest.raises(TypeError, match="no parameter 'env': did you mean 'envs'"):
        await run("ls", env={"A": "1"})


async def test_parameters_set_later_are_checked(bay: AsyncAgentBay) -> None:
    """Attributes that were set after the construction are checked before anything is sent."""
    params = CreateSessionParams(context_syncs=[ContextSync("id", "/data")])
    params.context_syncs[0].path = "data"
    assert "path must be absolute" in (await bay.create(params)).error_message
    params.labels = ["a"]  # type: ignore[assignment]
    assert "labels must be a dict" in (await bay.create(params)).error_message


async def test_secrets_are_not_shown(session: AsyncSession) -> None:
    """The value of a secret parameter is in no error."""
    refused = await session.oss.env_init("id", "secret", b"token")  # type: ignore[arg-type]
    assert refused.error_message == "security_token must be a string, not of type bytes"
    with pytest.raises(ValueError, match="envs must be a dict of strings") as caught:
        (await session.command.run("ls", envs="A=secret")).unwrap()  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


async def test_handles_cannot_be_pickled(bay: AsyncAgentBay, session: AsyncSession) -> None:
    """A handle refuses to be pickled or copied, and says what to send instead."""
    process = await session.command.start("sleep 60")
    for handle, instead in (
        (session, r"session_id.*get\(session_id\)"),
        (session.command, r"session_id.*get\(session_id\)"),
        (process, r"command\.attach\(id\)"),
        (bay, "Make a new client"),
        (bay.context, "Make a new client"),
        (await bay.get(session.session_id), "session_id"),
    ):
        for send in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match=f"cannot be pickled or copied.*{instead}"):
                send(handle)
    await process.kill()


async def test_forgotten_steps_are_named(bay: AsyncAgentBay) -> None:
    """A forgotten `with` or `.session` is an AttributeError that says what to write."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the block that is never entered
        block: Any = bay.session()
        with pytest.raises(AttributeError, match=r"`with bay\.session\(\) as session:`"):
            _ = block.command
        assert not hasattr(block, "__len__")
    result: Any = agentbay.SessionResult()
    with pytest.raises(AttributeError, match=r"create\(\)\.unwrap\(\)\.session\.command"):
        _ = result.command
    assert not hasattr(result, "__len__")
