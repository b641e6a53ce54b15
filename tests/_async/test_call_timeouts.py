"""`timeout=` of every method that calls the service."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import pkgutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
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
from agentbay._async.computer import AsyncComputer
from agentbay._async.extensions import AsyncExtensionsService
from agentbay._async.git import AsyncGit
from agentbay._async.mobile import AsyncMobile
from agentbay._async.mobile_simulate import AsyncMobileSimulateService
from agentbay._async.process import AsyncProcess
from agentbay._concurrency import async_sleep
from tests.scripted import NOT_FOUND, Peer, Request, Service, ok, refused, silence, tool_says

from .calls import client, handle


class Title(BaseModel):
    """What a model shall read from a page."""

    title: str


LIMIT_SECONDS = 0.03
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
    undocumented = {name for name, function in METHODS.items() if "timeout" not in (function.__doc__ or "")}
    assert {name.partition(".")[0] for name in undocumented - WATCHES} <= {"Computer", "Mobile", "Git", "GitRemotes"}
    for cls in (AsyncComputer, AsyncMobile, AsyncGit):
        assert "`timeout`" in (cls.__doc__ or "")


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


async def test_a_session_is_deleted_all_the_same() -> None:
    """An upload of contexts that uses up the time does not keep a session alive."""
    uploading = [{"contextId": "c", "path": "/x", "status": "Preparing", "taskType": "upload", "startTime": 1}]
    state = json.dumps([{"type": "data", "data": json.dumps(uploading)}])
    script: dict[str, Any] = {"SyncContext": ok(), "GetContextInfo": ok({"ContextStatus": state})}
    with Service({**script, "DeleteSessionAsync": ok(), "GetSessionDetail": NOT_FOUND}) as service:
        async with client(service.url) as bay:
            deleted = await handle(bay).delete(sync_context=True, timeout=0.3)
            assert "was deleted, but its contexts were not uploaded" in deleted.error_message
            assert service.count("DeleteSessionAsync") == 1


async def test_a_terminal_that_nobody_gets_is_killed(session: AsyncSession) -> None:
    """A terminal whose creation took too long leaves no program behind."""
    await session.pty.list()
    late = 0
    for milliseconds in (0.3, 0.6, 1, 1.5) * 5:
        try:
            terminal = await session.pty.create(argv=["sleep", "100"], timeout=milliseconds / 1000)
        except DeadlineExceeded:
            late += 1
        else:
            await terminal.kill()
    assert late
    for _ in range(100):
        if not (await session.command.run("pgrep sleep")).stdout:
            break
        await async_sleep(0.1)
    assert all(terminal.status == "exited" for terminal in await session.pty.list())


@pytest.mark.slow
async def test_following_and_staging_have_it() -> None:
    """A command with callbacks or input ends soon after its time limit where the service does not answer."""
    with Service(silence) as service:
        async with client(service.url) as bay:
            command = handle(bay).command
            for options in ({"on_stdout": print}, {"stdin": "x"}):
                started = time.monotonic()
                late = await command.run("true", timeout=0.1, **options)  # type: ignore[arg-type]
                assert isinstance(late.exception, DeadlineExceeded)
                # the margin for an answer, and the end of what may have been started
                assert time.monotonic() - started < 25


async def test_two_commands_of_git_share_it(session: AsyncSession) -> None:
    """Where git runs twice, the second one has what the first one left."""
    with pytest.raises(GitTimeoutError):
        await session.git.configure_user(".", "a", "a@example.com", timeout=0.0001)
    await session.git.configure_user(".", "a", "a@example.com", timeout=60)
    assert (await session.command.run("git config --global user.email")).stdout == "a@example.com\n"


async def test_callbacks_have_their_own(session: AsyncSession, tmp_path: Path) -> None:
    """What a callback calls, or starts, is not limited by the call that it reports on."""
    (tmp_path / "file").write_bytes(b"x")
    seen: list[tuple[float, bool]] = []

    async def progress(_: object) -> None:
        await async_sleep(0.3)
        seen.append((session.timeout, (await session.keep_alive()).success))

    with contextlib.suppress(DeadlineExceeded):
        await session.file_system.push(tmp_path, "there", progress=progress, timeout=0.2)
    assert seen
    assert set(seen) == {(session.agent_bay.timeout, True)}


async def test_copying_in_the_background_outlives_it() -> None:
    """The callback of `context.sync` is called when the copying ends, later than the call's time limit."""
    done: list[bool] = []
    with Service({"SyncContext": ok(), "GetContextInfo": answer_late}) as service:
        async with client(service.url) as bay:
            await handle(bay).context.sync(callback=done.append, timeout=0.2)
            for _ in range(200):
                if done:
                    break
                await async_sleep(0.05)
    assert done == [True]


async def test_a_process_is_polled_once(session: AsyncSession) -> None:
    """Waiting for no time tells whether the process has ended."""
    process = await session.command.start("true")
    await process.wait()
    again = await session.command.attach(process.id)
    assert await again.wait(timeout=0) == 0
    running = await session.command.start("sleep 60")
    with pytest.raises(DeadlineExceeded, match="still runs"):
        await running.wait(timeout=0)


@pytest.mark.parametrize("way", ["the own pool", "http_client"])
async def test_slow_storage(way: str, tmp_path: Path) -> None:
    """A storage that takes one block after the other, and never stands still, is left when the time is over."""
    (tmp_path / "file").write_bytes(bytes(32 << 20))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        threading.Thread(target=take_slowly, args=(listener,), daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        with Service({"GetContextFileUploadUrl": ok({"Url": url, "ExpireTime": 99999})}) as service:
            async with httpx.AsyncClient(trust_env=False) as mine:
                options = {"http_client": mine} if way == "http_client" else {}
                async with client(service.url, max_retries=0, **options) as bay:
                    started = time.monotonic()
                    with pytest.raises(DeadlineExceeded):
                        await bay.context.upload("c", tmp_path / "file", "/x", timeout=0.5)
                    assert time.monotonic() - started < PATIENCE_SECONDS


def take_slowly(listener: socket.socket) -> None:
    """Accept one connection, and read about 3 MiB a second from it."""
    peer, _ = listener.accept()
    with peer, contextlib.suppress(OSError):
        while peer.recv(1 << 17):
            time.sleep(0.04)


async def test_the_start_of_a_runtime_does_not_count() -> None:
    """The first call may take the time that the private runtime needs to start, beside its own limit."""
    async with AsyncAgentBay.local() as bay:
        assert (await bay.list(timeout=0.1)).success
    async with AsyncAgentBay.local() as bay, bay.session(timeout=0.2) as session:
        assert (await session.keep_alive()).success


async def test_very_long_limits(session: AsyncSession) -> None:
    """A limit may be longer than any program runs."""
    for timeout in (1e10, float("inf")):
        assert (await session.keep_alive(timeout=timeout)).success
        assert await session.pty.list(timeout=timeout) == []
    assert (await session.command.run("echo hi", timeout=1e10)).stdout == "hi\n"
    with pytest.raises(InvalidArgumentError, match="positive and finite"):
        await session.git.init("r", timeout=float("inf"))
