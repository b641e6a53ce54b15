"""The exception tree, and that no error, result, client or log shows a secret."""

from __future__ import annotations

import asyncio
import copy
import importlib
import json
import logging
import pickle
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

import agentbay
from agentbay import (
    AgentBay,
    AgentBayError,
    APIError,
    AsyncAgentBay,
    Config,
    GitAuthError,
    GitConflictError,
    GitError,
    GitNotARepoError,
    GitNotFoundError,
    RateLimitError,
    errors,
)
from agentbay._wire.schema import ACTIONS, TOOLS
from agentbay.config import Settings
from tests.capture import Captured, capturing

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, AgentBayError)]
every_class = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)

BASES: dict[str, tuple[str, ...]] = {
    "AgentBayError": ("Exception",),
    "ConfigurationError": ("AgentBayError", "ValueError"),
    "InvalidArgumentError": ("AgentBayError", "ValueError"),
    "ClientClosedError": ("AgentBayError", "RuntimeError"),
    "TransportError": ("AgentBayError",),
    "ConnectionFailed": ("TransportError",),
    "ConnectionPoolFull": ("ConnectionFailed", "TimeoutError"),
    "ConnectionLost": ("TransportError",),
    "DeadlineExceeded": ("TransportError", "TimeoutError"),
    "ReplyError": ("AgentBayError",),
    "APIError": ("AgentBayError",),
    "AuthenticationError": ("APIError",),
    "PermissionDeniedError": ("APIError",),
    "InvalidRequestError": ("APIError",),
    "NotFoundError": ("APIError",),
    "SessionNotFoundError": ("NotFoundError", "SessionError"),
    "ConflictError": ("APIError",),
    "RateLimitError": ("APIError",),
    "ServerError": ("APIError",),
    "ServiceUnavailableError": ("ServerError",),
    "ToolError": ("AgentBayError",),
    "NotSupportedError": ("AgentBayError",),
    "SessionError": ("AgentBayError",),
    "BrowserError": ("AgentBayError",),
    "FileError": ("AgentBayError",),
    "PathNotFoundError": ("FileError", "FileNotFoundError"),
    "PathPermissionError": ("FileError", "PermissionError"),
    "PathIsDirectoryError": ("FileError", "IsADirectoryError"),
    "PathNotDirectoryError": ("FileError", "NotADirectoryError"),
    "PathExistsError": ("FileError", "FileExistsError"),
    "OssError": ("AgentBayError",),
    "AgentError": ("AgentBayError",),
    "ClearanceTimeoutError": ("AgentBayError",),
    "CommandError": ("AgentBayError",),
    "CommandTimeoutError": ("CommandError", "TimeoutError"),
    "GitError": ("AgentBayError",),
    "GitAuthError": ("GitError",),
    "GitNotFoundError": ("GitError",),
    "GitConflictError": ("GitError",),
    "GitNotARepoError": ("GitError",),
    "PtyError": ("AgentBayError",),
    "PtySessionNotFoundError": ("PtyError",),
    "PtyNotConnectedError": ("PtyError",),
}
DEFAULTS = {
    "AgentBayError": "AgentBayError",
    "AuthenticationError": "Authentication failed",
    "APIError": "API error",
    "SessionError": "Session error",
    "BrowserError": "Browser error",
    "FileError": "File operation error",
    "CommandError": "Command execution error",
    "OssError": "OSS operation error",
    "AgentError": "Agent action error",
    "ClearanceTimeoutError": "Context clearing operation timed out",
    "GitError": "Git operation error",
    "GitAuthError": "Git authentication error",
    "GitNotFoundError": "Git not found",
    "GitConflictError": "Git merge conflict",
    "GitNotARepoError": "Not a git repository",
    "PtyError": "PTY operation error",
    "PtySessionNotFoundError": "PTY session not found",
    "PtyNotConnectedError": "PTY handle is not connected",
}


@pytest.mark.parametrize(("name", "bases"), BASES.items())
def test_tree(name: str, bases: tuple[str, ...]) -> None:
    """Each class has its documented base classes."""
    assert tuple(base.__name__ for base in getattr(errors, name).__bases__) == bases


@every_class
def test_every_class_is_public_and_drawn(kind: type[AgentBayError]) -> None:
    """Each error class is public, in the drawing, and described."""
    assert kind.__name__ == "WsCancelledError" or getattr(agentbay, kind.__name__) is kind  # the contract hides that
    assert kind.__name__ in (errors.__doc__ or "")
    assert kind.__doc__


@every_class
def test_only_the_service_makes_api_errors(kind: type[AgentBayError]) -> None:
    """No class is both an APIError and a TransportError."""
    assert not (issubclass(kind, errors.APIError) and issubclass(kind, errors.TransportError))


@pytest.mark.parametrize(("name", "message"), DEFAULTS.items())
def test_default_messages(name: str, message: str) -> None:
    """Without a message each class has the contract's."""
    assert str(getattr(errors, name)()) == message


@every_class
def test_constructor(kind: type[AgentBayError]) -> None:
    """A message is given by position or name, and further keywords go to `extra`."""
    assert kind("why").message == kind(message="why").message == str(kind("why")) == "why"
    assert kind("why", answer=42).extra == {"answer": 42}
    assert kind().message
    assert kind().extra == {}
    with pytest.raises(AgentBayError):
        raise kind("why")


@every_class
def test_facts(kind: type[AgentBayError]) -> None:
    """`str` is the message and then the hint."""
    error = kind("It failed.", hint="Try this.", action="A", request_id="R", code="C", status_code=418)
    assert str(error) == "It failed. Try this."
    assert error.context() == {"hint": "Try this.", "action": "A", "request_id": "R", "code": "C", "status_code": 418}
    bare = kind("It failed.")
    assert (bare.hint, bare.action, bare.request_id, bare.code, bare.status_code) == ("", "", "", "", None)


@every_class
def test_further_arguments_are_kept(kind: type[AgentBayError]) -> None:
    """Further positional arguments are kept in `args`."""
    own: tuple[Any, ...] = (None,) if issubclass(kind, APIError) else (None, "") if issubclass(kind, GitError) else ()
    assert kind("why", *own, "more").args == ("why", "more")


def test_status_of_an_api_error() -> None:
    """APIError takes its HTTP status by position or by name."""
    assert APIError("no", 404).status_code == APIError("no", status_code=404).status_code == 404
    assert APIError().status_code is None


@pytest.mark.parametrize(
    ("kind", "code"),
    [(GitError, 1), (GitAuthError, 1), (GitNotFoundError, 127), (GitConflictError, 1), (GitNotARepoError, 128)],
)
def test_exit_codes_of_git(kind: type[GitError], code: int) -> None:
    """Git errors have the contract's exit code by default."""
    assert (kind().exit_code, kind().stderr) == (code, "")
    for error in (kind("why", 5, "text"), kind("why", exit_code=5, stderr="text")):
        assert (error.exit_code, error.stderr, error.message) == (5, "text", "why")
    assert kind("why", exit_code=0).exit_code == 0


def sample(kind: type[AgentBayError]) -> AgentBayError:
    own: dict[str, Any] = {
        "exit_code": 9,
        "stderr": "e",
        "stdout": "o",
        "retry_after": 1.5,
    }
    error = kind("It failed.", hint="Try this.", action="A", request_id="R", code="C", answer=[1])
    for name, value in own.items():
        if hasattr(error, name):
            setattr(error, name, value)
    return error


@every_class
@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_pickles_and_copies(kind: type[AgentBayError], again: Any) -> None:
    """An error is pickled and copied with its class and every attribute."""
    error = sample(kind)
    error.__cause__ = ValueError("below")
    error.add_note("noted")
    found = again(error)
    assert type(found) is kind
    assert vars(found) == vars(error)
    assert (found.args, str(found), repr(found)) == (error.args, str(error), repr(error))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_with_every_protocol(protocol: int) -> None:
    """Every pickle protocol keeps `retry_after`."""
    error = pickle.loads(pickle.dumps(RateLimitError("slow", 429, retry_after=2.0), protocol))
    assert (error.retry_after, error.status_code) == (2.0, 429)


MARK = "sEcReTmArKeR"
URL = f"https://user:{MARK}@host.invalid/{MARK}/path?Signature={MARK}#{MARK}"
# Fields whose value opens something. A field whose name has one of these words is taken to be one.
WORDS = ("token", "secret", "password", "auth_code", "ticket", "connection_properties", "api_key", "access_key", "url")
OPEN = {"next_token", "ws_url_hint", "request_id_upload_url", "request_id_download_url"}  # names that only sound so


def classes(*packages: str) -> Iterator[type[Any]]:
    for package in packages:
        module = importlib.import_module(f"agentbay.{package}")
        for found in pkgutil.iter_modules(module.__path__):
            part = importlib.import_module(f"agentbay.{package}.{found.name}")
            for value in vars(part).values():
                if isinstance(value, type) and attrs.has(value) and value.__module__ == part.__name__:
                    yield value


def is_secret(name: str) -> bool:
    return name not in OPEN and any(word in name for word in WORDS)


ALL = list(classes("models", "_wire"))
SECRETIVE = [kind for kind in ALL if any(is_secret(field.name) for field in attrs.fields(kind))]


EXAMPLES: dict[str, Callable[[], Any]] = {  # of classes that check their values
    "BrowserProxy": lambda: agentbay.BrowserProxy("custom", URL, "user", MARK),
    "BrowserOption": lambda: agentbay.BrowserOption(
        default_navigate_url=URL, proxies=[agentbay.BrowserProxy("custom", URL, "user", MARK)]
    ),
}


def built(kind: type[Any]) -> Any:
    """Return an object whose every secret field holds the marker."""
    if kind.__name__ in EXAMPLES:
        return EXAMPLES[kind.__name__]()
    attrs.resolve_types(kind)
    given = {}
    for field in attrs.fields(kind):
        if not field.init:
            continue
        if is_secret(field.name):
            given[field.name] = URL if "url" in field.name else MARK
        elif field.default is attrs.NOTHING:
            given[field.name] = {"k": "v"} if "dict" in str(field.type) else ["v"] if "list" in str(field.type) else "v"
    return kind(**given)


def test_the_table_is_not_empty() -> None:
    """The search for secret fields finds the known ones."""
    names = {kind.__name__ for kind in SECRETIVE}
    assert {"CreatedSessionData", "SessionData", "SessionInfo", "GetSessionData", "LinkData", "DirectToolCall"} <= names
    assert len(ALL) > 60


@pytest.mark.parametrize("kind", SECRETIVE, ids=lambda kind: kind.__name__)
def test_no_object_shows_a_secret(kind: type[Any]) -> None:
    """Neither repr nor str of a value shows its secret fields."""
    value = built(kind)
    assert MARK not in f"{value!r} {value!s} {value}"


def test_results_show_no_link() -> None:
    """A result shows a link without its token, also when nested."""
    for data in (URL, {"link": [URL]}, f"see {URL} and {URL}"):
        shown = repr(agentbay.OperationResult("R", True, data))
        assert MARK not in shown
        assert "host.invalid" in shown


def test_sessions_and_clients_show_no_secret() -> None:
    """Clients, sessions and settings do not show keys, tokens and links."""
    for client in (AgentBay(MARK), AsyncAgentBay(MARK), AgentBay(MARK, Config(endpoint="http://127.0.0.1:1"))):
        kind = agentbay.AsyncSession if isinstance(client, AsyncAgentBay) else agentbay.Session
        session = kind(client, "session-1")  # type: ignore[arg-type]
        session.token, session.link_url, session.ws_url, session.resource_url = MARK, URL, URL, URL
        result = agentbay.SessionResult("R", True, session=session)
        for value in (client, client.client, session, session.command, session.file_system, result):
            assert MARK not in f"{value!r} {value!s}"
    settings = Settings(MARK, "r", "http://h", "h", 1.0)
    assert MARK not in f"{settings!r} {settings!s} {settings}"


def test_actions_and_tools_show_no_arguments() -> None:
    """A tool call does not show its arguments."""
    call = ACTIONS["CallMcpTool"](session_id="s", name="oss_env_init", args={"access_key_secret": MARK})  # type: ignore[call-arg]
    shell = TOOLS["shell"](command="env", envs={"PASSWORD": MARK})  # type: ignore[call-arg]
    assert MARK not in repr(call)
    assert MARK not in repr(shell)


TOOLS_LISTED = json.dumps([{"name": "shell", "server": "wuying_shell"}])


def service(request: Captured) -> dict[str, Any]:
    """A service that sends secrets wherever it can."""
    if request.path.endswith("/callTool"):
        text = json.dumps({"stdout": MARK, "stderr": "", "exit_code": 0})
        return {"data": {"result": {"content": [{"type": "text", "text": text}]}}}
    data: Any = {
        "Status": "FINISH",
        "SessionId": "session-1",
        "Token": f"token-{MARK}",
        "LinkUrl": f"http://{request.headers['host'].removeprefix('http://')}/{MARK}",
        "WsUrl": URL,
        "ResourceUrl": URL,
        "Url": URL,
        "ToolList": TOOLS_LISTED,
        "DesktopInfo": {"AuthCode": MARK, "Ticket": MARK},
    }
    return {"Success": True, "RequestId": "R", "Data": data}


def drive_sync(url: str) -> None:
    with AgentBay(f"key-{MARK}", Config(endpoint=url)) as client:
        session = client.create().session
        assert session is not None
        assert session.command.execute_command(f"echo {MARK}", envs={"A": MARK}).success
        assert MARK in session.get_link("https", 30100).data
        assert session.info().success
        assert session.delete().success


async def drive_async(url: str) -> None:
    async with AsyncAgentBay(f"key-{MARK}", Config(endpoint=url)) as client:
        session = (await client.create()).session
        assert session is not None
        assert (await session.command.execute_command(f"echo {MARK}", envs={"A": MARK})).success
        assert MARK in (await session.get_link("https", 30100)).data
        assert (await session.info()).success
        assert (await session.delete()).success


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_no_log_line_has_a_secret(flavour: str, caplog: pytest.LogCaptureFixture) -> None:
    """Real calls name themselves in the log, and log no secret."""
    caplog.set_level(logging.DEBUG, "agentbay")
    with capturing(service) as capture:
        if flavour == "sync":
            drive_sync(capture.url)
        else:
            asyncio.run(drive_async(capture.url))
        assert any(MARK in request.path for request in capture.requests)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("agentbay")]
    assert any("CreateMcpSession" in line for line in ours)
    assert MARK not in "\n".join(ours)


@pytest.mark.parametrize("flavour", ["sync", "async"])
@pytest.mark.parametrize("status", [200, 302, 401, 404, 500])
def test_no_failure_shows_a_secret(flavour: str, status: int, tmp_path: Any) -> None:
    """A failed call shows no secret, its cause included."""
    from tests.capture import Answered

    answers = [b"<html>nonsense", b"{}", json.dumps({"Data": URL, "Success": True}).encode()]
    for body in answers:
        with capturing(lambda _, body=body: Answered(body, status)) as capture:  # type: ignore[misc]
            found = asyncio.run(fail_async(capture.url)) if flavour == "async" else fail_sync(capture.url)
        for result in found:
            assert not result.success
            error = result.exception
            while error is not None:
                assert MARK not in f"{result!r} {error!r} {error!s}"
                error = error.__cause__


def fail_sync(url: str) -> list[Any]:
    with AgentBay(f"key-{MARK}", Config(endpoint=url), max_retries=0) as client:
        session = agentbay.Session(client, "session-1")
        session.token, session.link_url, session.mcpTools = MARK, f"{url}/{MARK}", [agentbay.McpTool("shell", "s")]
        return [client.get("session-1"), session.command.execute_command(MARK), session.call_mcp_tool("x", {"a": MARK})]


async def fail_async(url: str) -> list[Any]:
    async with AsyncAgentBay(f"key-{MARK}", Config(endpoint=url), max_retries=0) as client:
        session = agentbay.AsyncSession(client, "session-1")
        session.token, session.link_url, session.mcpTools = MARK, f"{url}/{MARK}", [agentbay.McpTool("shell", "s")]
        return [
            await client.get("session-1"),
            await session.command.execute_command(MARK),
            await session.call_mcp_tool("x", {"a": MARK}),
        ]
