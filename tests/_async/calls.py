"""A table of every public method that talks to the service.

It says how each is called, and what it does when it fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from agentbay import (
    AgentBayError,
    APIError,
    AsyncAgentBay,
    AsyncSession,
    Config,
    Context,
    ContextSync,
    LifecyclePolicy,
    McpTool,
    SessionError,
)

TOOLS = ("shell", "run_code", "read_file", "write_file", "list_directory", "get_file_info", "get_metrics", "my_tool")


class Call(NamedTuple):
    """One method, how it is called, and how it fails.

    Attributes:
        name: Its name; "direct" means by the session's own link.
        action: The first request it sends.
        make: Calls it, given a client and a session.
        repeatable: Whether that request may be sent twice.
        raises: What it raises where others return a failed result.
        raises_refusal: The same for a refusal of the service.
        acknowledged: Whether `Data` of the answer has no meaning.
        folds_ordinary: Whether it returns a failed result all the same for a refusal that is no HTTP error.
    """

    name: str
    action: str
    make: Callable[[AsyncAgentBay, AsyncSession], Awaitable[Any]]
    repeatable: bool = False
    raises: type[AgentBayError] | None = None
    raises_refusal: type[AgentBayError] | None = None
    acknowledged: bool = False
    folds_ordinary: bool = False

    @property
    def direct(self) -> bool:
        """Whether it uses the session's direct link."""
        return self.action == "callTool"


async def _iterate(bay: AsyncAgentBay, _: AsyncSession) -> object:
    return [found async for found in bay.iter_sessions()]


async def _with_session(bay: AsyncAgentBay, _: AsyncSession) -> object:
    async with bay.session() as session:
        return session


def _tool_calls(prefix: str, action: str) -> list[Call]:
    return [
        Call(f"{prefix}call_mcp_tool", action, lambda _, session: session.call_mcp_tool("my_tool", {"a": 1})),
        Call(f"{prefix}get_metrics", action, lambda _, session: session.get_metrics()),
        Call(f"{prefix}execute_command", action, lambda _, session: session.command.execute_command("true")),
        Call(f"{prefix}run_code", action, lambda _, session: session.code.run_code("1", "python")),
        Call(f"{prefix}read_file", action, lambda _, session: session.file_system.read_file("f")),
        Call(f"{prefix}read_bytes", action, lambda _, session: session.file_system.read_file("f", format="bytes")),
        Call(f"{prefix}write_file", action, lambda _, session: session.file_system.write_file("f", "x")),
        Call(f"{prefix}list_directory", action, lambda _, session: session.file_system.list_directory(".")),
    ]


def _context_calls() -> list[Call]:
    """Methods of contexts, one of each kind of failure."""
    context = Context("SdkCtx-x", "x")
    raises: dict[str, Any] = {"raises": AgentBayError, "raises_refusal": APIError}
    return [
        Call("context.create", "GetContext", lambda bay, _: bay.context.create("x"), True),
        Call(
            "context.delete",
            "DeleteContext",
            lambda bay, _: bay.context.delete(context),
            True,
            **raises,
            acknowledged=True,
            folds_ordinary=True,
        ),
        Call(
            "context.list_files",
            "DescribeContextFiles",
            lambda bay, _: bay.context.list_files("SdkCtx-x", "/"),
            True,
            **raises,
            folds_ordinary=True,
        ),
        Call(
            "context.bind",
            "BindContexts",
            lambda _, session: session.context.bind(ContextSync("SdkCtx-x", "/x"), wait_for_completion=False),
            **raises,
            acknowledged=True,
            folds_ordinary=True,
        ),
    ]


CALLS = [
    Call("create", "CreateMcpSession", lambda bay, _: bay.create()),
    Call("session()", "CreateMcpSession", _with_session, raises=AgentBayError, raises_refusal=APIError),
    Call("get", "GetSession", lambda bay, _: bay.get("session-x"), repeatable=True),
    Call("get_session", "GetSession", lambda bay, _: bay.get_session("session-x"), repeatable=True),
    Call("list", "ListSession", lambda bay, _: bay.list(), repeatable=True),
    Call("iter_sessions", "ListSession", _iterate, True, AgentBayError, APIError),
    Call("bay.delete", "DeleteSessionAsync", lambda bay, session: bay.delete(session), True, SessionError, None, True),
    Call("bay.pause", "PauseSessionAsync", lambda bay, session: bay.pause(session, 1), acknowledged=True),
    Call("bay.pause_async", "PauseSessionAsync", lambda bay, session: bay.pause_async(session), acknowledged=True),
    Call("bay.beta_pause", "PauseSessionAsync", lambda bay, session: bay.beta_pause(session, 1), acknowledged=True),
    Call("bay.resume", "ResumeSessionAsync", lambda bay, session: bay.resume(session, 1), acknowledged=True),
    Call("bay.resume_async", "ResumeSessionAsync", lambda bay, session: bay.resume_async(session), acknowledged=True),
    Call("bay.beta_resume", "ResumeSessionAsync", lambda bay, session: bay.beta_resume(session, 1), acknowledged=True),
    Call("delete", "DeleteSessionAsync", lambda _, session: session.delete(), True, SessionError, None, True),
    Call("pause", "PauseSessionAsync", lambda _, session: session.pause(timeout=1), acknowledged=True),
    Call("pause_async", "PauseSessionAsync", lambda _, session: session.pause_async(), acknowledged=True),
    Call("beta_pause", "PauseSessionAsync", lambda _, session: session.beta_pause(timeout=1), acknowledged=True),
    Call("resume", "ResumeSessionAsync", lambda _, session: session.resume(timeout=1), acknowledged=True),
    Call("resume_async", "ResumeSessionAsync", lambda _, session: session.resume_async(), acknowledged=True),
    Call("beta_resume", "ResumeSessionAsync", lambda _, session: session.beta_resume(timeout=1), acknowledged=True),
    Call("keep_alive", "RefreshSessionIdleTime", lambda _, session: session.keep_alive(), True, acknowledged=True),
    Call(
        "set_lifecycle",
        "SetSessionLifecycle",
        lambda _, session: session.set_lifecycle(LifecyclePolicy(max_runtime=5)),
        True,
    ),
    Call("get_status", "GetSessionDetail", lambda _, session: session.get_status(), repeatable=True),
    Call(
        "set_labels",
        "SetLabel",
        lambda _, session: session.set_labels({"a": "b"}),
        True,
        SessionError,
        SessionError,
        True,
    ),
    Call("get_labels", "GetLabel", lambda _, session: session.get_labels(), True, SessionError, SessionError),
    Call("info", "GetMcpResource", lambda _, session: session.info(), True, SessionError, SessionError),
    Call("get_link", "GetLink", lambda _, session: session.get_link(), True, SessionError, SessionError),
    Call("list_mcp_tools", "ListMcpTools", lambda _, session: session.list_mcp_tools(), True, AgentBayError, APIError),
    *_context_calls(),
    *_tool_calls("", "CallMcpTool"),
    *_tool_calls("direct ", "callTool"),
]


def client(url: str, timeout: float = 60.0, **options: Any) -> AsyncAgentBay:
    """Make a client of the scripted service."""
    return AsyncAgentBay("akm-test", Config(endpoint=url), timeout=timeout, **options)


def handle(bay: AsyncAgentBay, link_url: str = "") -> AsyncSession:
    """Make a session handle without a call, with a direct link if given."""
    session = AsyncSession(bay, "session-x")
    if link_url:
        session.link_url, session.token = link_url, "token-x"
        session.mcpTools = [McpTool(name, "server-x") for name in TOOLS]
    return session


async def outcome(call: Call, bay: AsyncAgentBay, session: AsyncSession) -> tuple[Any, AgentBayError | None, bool]:
    """Make a call and return its result, its error, and whether that was raised."""
    try:
        result = await call.make(bay, session)
    except AgentBayError as error:
        return None, error, True
    return result, getattr(result, "exception", None), False


def root(error: AgentBayError | None) -> BaseException | None:
    """Return the error behind the `SessionError` that some methods raise."""
    while type(error) is SessionError and isinstance(error.__cause__, AgentBayError):
        error = error.__cause__
    return error
