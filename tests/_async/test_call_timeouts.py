"""`timeout=` of every method that calls the service."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import agentbay._async
from agentbay import (
    ActOptions,
    AgentBayError,
    AsyncAgentBay,
    AsyncSession,
    BrowserNotifyMessage,
    CodeTimeoutError,
    CommandTimeoutError,
    Context,
    ContextSync,
    DeadlineExceeded,
    ExtractOptions,
    GitTimeoutError,
    InvalidArgumentError,
    LifecyclePolicy,
    MobileExtraConfig,
    MobileSimulateConfig,
    ObserveOptions,
    RateLimitError,
)
from agentbay._async.extensions import AsyncExtensionsService
from agentbay._async.mobile_simulate import AsyncMobileSimulateService
from agentbay._async.process import AsyncProcess
from agentbay._concurrency import async_sleep
from tests.scripted import Peer, Request, Service, ok, refused, silence, tool_says

from .calls import client, handle


class Title(BaseModel):
    """What a model shall read from a page."""

    title: str


LIMIT_SECONDS = 0.05
PATIENCE_SECONDS = 5.0  # far below the client's own limit, and above what a busy machine needs for the shorter one


def remote_methods() -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """Yield the public methods that say which call they make."""
    for module in pkgutil.iter_modules(agentbay._async.__path__, agentbay._async.__name__ + "."):
        found = importlib.import_module(module.name)
        for cls in vars(found).values():
            if not inspect.isclass(cls) or cls.__module__ != found.__name__:
                continue
            for name, member in vars(cls).items():
                function = inspect.unwrap(member) if inspect.isfunction(member) else None
                is_public = not name.startswith("_") and not cls.__name__.startswith("_")
                if is_public and function is not None and "Wire:" in (function.__doc__ or ""):
                    yield cls.__name__.removeprefix("Async").removeprefix("Sync"), name, function


METHODS = {f"{cls}.{name}": function for cls, name, function in remote_methods()}
WATCHES = {"FileSystem.watch", "FileSystem.watch_directory"}  # go on until they are stopped
# Their time limit is that of a program or a task in the session, which still answers when it was ended for that; or,
# for the operator's screenshot, an argument of the tool.
LIMITS_IN_SESSION = (
    "Git",
    "Command.run",
    "Command.exec",
    "Code.run",
    "Code.execute",
    "Code.stream",
    "Process.wait",
    "Process.send_stdin",
    "BrowserOperator.screenshot",
    *(f"{kind}Agent.execute_task_and_wait" for kind in ("Computer", "Browser", "Mobile")),
)
# These call the service only if something was made before, or call another server.
NEED_MORE = ("PtyHandle.", "TaskExecution.", "SessionMcpServers.", "ExtensionsService.cleanup")
# After their time they undo what they began, for some seconds more.
CLEAN_UP = ("Command.start", "FileSystem.push", "FileSystem.pull")


def test_every_method_has_it() -> None:
    """What calls the service takes `timeout=`."""
    assert len(METHODS) > 180
    lacking = {name for name, function in METHODS.items() if "timeout" not in inspect.signature(function).parameters}
    assert lacking == WATCHES


def receivers(session: AsyncSession) -> dict[str, Any]:
    """Return an object of each class that has such methods."""
    bay = session.agent_bay
    found = [
        *(bay, bay.context, bay.images, bay.beta.skills, bay.beta.network, session),
        *(session.command, session.code, session.file_system, session.file_system._file_transfer, session.context),
        *(session.env, session.oss, session.browser, session.browser.operator, session.computer, session.mobile),
        *(session.agent.computer, session.agent.browser, session.agent.mobile, session.pty),
        AsyncExtensionsService(bay),
        AsyncMobileSimulateService(bay),
        AsyncProcess(session, "1234", 1, command="true"),
    ]
    return {
        cls.__name__.removeprefix("Async").removeprefix("Sync"): each for each in found for cls in type(each).__mro__
    }


def arguments(function: Callable[..., Any], folder: Path) -> dict[str, Any]:
    """Return a value for each argument that a method needs."""
    file = folder / "file.zip"
    by_name = {
        "action_input": ActOptions("click"),
        "callback": print,
        "config": MobileSimulateConfig(simulate=True, simulate_path="/x"),
        "context_sync": ContextSync("SdkCtx-x", "/x"),
        "dockerfile": "FROM scratch\nENV A=b\n",
        "edits": [{"oldText": "a", "newText": "b"}],
        "items": [{"context_id": "x", "skill_ids": ["y"]}],
        "local": folder,
        "local_path": str(file),
        "mobile_config": MobileExtraConfig(hide_navigation_bar=True),
        "mobile_dev_info_content": '{"a": 1}',
        "new_local_path": str(file),
        "notify_message": BrowserNotifyMessage("call-for-user", 1, 1, "", ""),
        "options": ObserveOptions("find") if function.__name__ == "observe" else ExtractOptions("read", Title),
        "overwrite": True,
        "path": str(file),
        "policy": LifecyclePolicy(max_runtime=5),
        "process_id": "0123456789abcdef",
        "timeout": LIMIT_SECONDS,
    }
    by_type = {
        "int": 1,
        "bool": True,
        "list[str]": ["x"],
        "List[str]": ["x"],
        "Sequence[str]": ["x"],
        "dict[str, str]": {"a": "b"},
        "dict[str, Any]": {},
        "Context": Context("SdkCtx-x", "x"),
    }
    made: dict[str, Any] = {"name": "x"} if function.__qualname__.endswith("ContextService.get") else {}
    for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
        is_needed = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
        if is_needed or name in ("timeout", "overwrite"):
            made[name] = by_name[name] if name in by_name else by_type.get(str(parameter.annotation), "x")
    return made


async def test_it_ends_every_call(tmp_path: Path) -> None:
    """A service that does not answer holds up no method for longer than its `timeout=`."""
    (tmp_path / "file.zip").write_bytes(b"PK")
    wrong: dict[str, str] = {}
    with Service(silence) as service:
        async with client(service.url) as bay:
            session = handle(bay)
            session.ws_url, session.token = service.url.replace("http", "ws", 1), "token-x"
            owners = receivers(session)
            for name, function in METHODS.items():
                if name in WATCHES or name.startswith((*LIMITS_IN_SESSION, *NEED_MORE, *CLEAN_UP)):
                    continue
                owner, _, method = name.partition(".")
                session.browser._initialized = method not in ("initialize", "init")
                session.link_url = service.url if method == "beta_take_screenshot" else ""
                positional = [ContextSync("SdkCtx-x", "/x")] if name == "ContextManager.bind" else []
                started = time.monotonic()
                outcome: Any = None
                try:
                    outcome = getattr(owners[owner], method)(*positional, **arguments(function, tmp_path))
                    if hasattr(outcome, "__anext__"):
                        outcome = await outcome.__anext__()
                    elif hasattr(outcome, "__await__"):
                        outcome = await outcome
                except AgentBayError as error:
                    outcome = error
                took = time.monotonic() - started
                if took > PATIENCE_SECONDS or getattr(outcome, "success", False) is True:
                    wrong[name] = f"after {took:.2f} s: {outcome!r:.200}"
                elif took < LIMIT_SECONDS / 2:
                    wrong[name] = f"called nothing: {outcome!r:.200}"
    assert not wrong


def answer_late(peer: Peer, request: Request) -> None:
    """Answer with success after 0.3 seconds."""
    time.sleep(0.3)
    ok()(peer, request)


async def test_it_may_be_longer_than_the_clients() -> None:
    """The limit of one call goes before that of the client."""
    with Service(answer_late) as service:
        async with client(service.url, timeout=0.1, max_retries=0) as bay:
            session = handle(bay)
            assert isinstance((await session.keep_alive()).exception, DeadlineExceeded)
            assert (await session.keep_alive(timeout=60)).success
            assert isinstance((await session.keep_alive()).exception, DeadlineExceeded)


async def test_all_steps_share_it() -> None:
    """It limits a method with several calls as a whole, retries and their backoff included."""
    with Service(answer_late) as service:
        async with client(service.url) as bay:
            started = time.monotonic()
            found = await bay.list(page=50, timeout=0.5)
            assert not found.success
            assert service.count() <= 2
    with Service(refused("Throttling", 429, {"Retry-After": "0"})) as service:
        async with client(service.url, max_retries=10_000) as bay:
            refusal = await bay.get("session-x", timeout=0.5)
            assert isinstance(refusal.exception, (DeadlineExceeded, RateLimitError))
    assert time.monotonic() - started < PATIENCE_SECONDS


async def test_each_page_has_it() -> None:
    """An iteration has the limit for each page, so that it may take as long as it likes."""
    page = ok([{"SessionId": "s"}], NextToken="more", MaxResults=1, TotalCount=9)
    last = ok([{"SessionId": "s"}], NextToken="", MaxResults=1, TotalCount=9)

    def late(peer: Peer, request: Request) -> None:
        time.sleep(0.2)
        (last if service.count() == 4 else page)(peer, request)

    with Service(late) as service:
        async with client(service.url, timeout=0.1) as bay:
            assert len([found async for found in bay.iter_sessions(timeout=0.6)]) == 4


async def test_cleaning_up_has_time_of_its_own() -> None:
    """What a call began is undone although its time is over."""
    with Service([silence, tool_says("")]) as service:
        async with client(service.url) as bay:
            with pytest.raises(DeadlineExceeded):
                await handle(bay).command.start("sleep 60", timeout=0.2)
            started, cancelled = [request.fields["Args"] for request in service.requests]
            assert "sleep 60" in started
            assert "kill" in cancelled


@pytest.mark.parametrize("timeout", [-1, float("nan"), "5", True])
async def test_limits_that_are_wrong(session: AsyncSession, timeout: Any) -> None:
    """A limit that is none is refused, and nothing is sent."""
    assert isinstance((await session.keep_alive(timeout=timeout)).exception, InvalidArgumentError)
    with pytest.raises(InvalidArgumentError, match="timeout must be"):
        await session.get_labels(timeout=timeout)
    assert isinstance((await session.command.run("true", timeout=timeout)).exception, InvalidArgumentError)


async def test_programs_are_killed(session: AsyncSession) -> None:
    """Where a program runs, it is killed when the time is over, and its output so far is there."""
    late = await session.command.run("echo begun; sleep 60", timeout=0.5)
    assert isinstance(late.exception, CommandTimeoutError)
    assert late.exception.stdout == "begun\n"
    assert (await session.command.run("sleep 0.3; echo done", 100, timeout=60)).stdout == "done\n"
    ran = await session.code.run("import time; print('begun', flush=True); time.sleep(60)", "python", timeout=1)
    assert isinstance(ran.exception, CodeTimeoutError)
    (await session.git.init("r"))
    (
        await session.command.run("printf '#!/bin/sh\nsleep 60' > r/.git/hooks/pre-commit; chmod +x r/.git/hooks/*")
    ).check()
    (await session.git.configure_user("r", "a", "a@example.com"))
    with pytest.raises(GitTimeoutError):
        await session.git.commit("r", "empty", allow_empty=True, timeout=0.5)
    assert not (await session.command.run("pgrep sleep", timeout=60)).stdout


async def test_what_a_call_started_outlives_it(bay: AsyncAgentBay) -> None:
    """Sessions, processes, terminals and connections go on when the time of the call that made them is over."""
    async with bay.session(timeout=3) as session:
        process = await session.command.start("sleep 4; echo done", timeout=3)
        terminal = await session.pty.create(argv=["cat"], echo=False, timeout=3)
        await async_sleep(3.2)
        await terminal.send_input("hello\n")
        assert await terminal.read_until("hello") == b"hello"
        assert await process.wait(60) == 0
        assert await process.stdout.read() == "done\n"
        await terminal.kill(timeout=5)
