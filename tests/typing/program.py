"""A user's program that only type checkers read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import agentbay
from agentbay import (
    AgentBay,
    AgentBayError,
    AsyncAgentBay,
    AsyncCommand,
    AsyncFileSystem,
    AsyncSession,
    BinaryFileContentResult,
    BoolResult,
    CodeCleared,
    CodeContext,
    CodeEnded,
    CodeFailed,
    CodeShown,
    CodeStderr,
    CodeStdout,
    Command,
    CommandResult,
    Config,
    Context,
    ContextSync,
    CreateSessionParams,
    DeleteResult,
    DirectoryEntry,
    FileContentResult,
    FileSystem,
    GetSessionData,
    LifecyclePolicy,
    McpTool,
    McpToolResult,
    OperationResult,
    RateLimitError,
    Session,
    SessionListResult,
    SessionMetrics,
    SessionPauseResult,
    SessionResult,
    SyncPolicy,
)

PARAMS = CreateSessionParams(
    labels={"project": "demo"},
    image_id="linux_latest",
    lifecycle_policy=LifecyclePolicy(idle_release_timeout=5, max_runtime=30),
    context_syncs=[ContextSync("id", "/tmp/data", SyncPolicy())],
)


async def asynchronous() -> None:
    async with AsyncAgentBay("key", Config(region_id="cn-hangzhou"), timeout=5.0, max_retries=0) as client:
        assert_type(client, AsyncAgentBay)
        created = await client.create(PARAMS)
        assert_type(created, SessionResult[AsyncSession])
        assert_type(created.session, AsyncSession | None)
        assert_type(created.unwrap().session, AsyncSession)
        unwrapped: SessionResult[AsyncSession] = created.unwrap()
        assert_type(unwrapped.unwrap().session, AsyncSession)
        assert_type((await client.get("id")).unwrap().session, AsyncSession)
        assert_type((await client.get_session("id")).unwrap().data, GetSessionData)
        assert_type((await client.context.get("name", create=True)).unwrap().context, Context)
        assert_type(created.exception, AgentBayError | None)
        assert_type(await client.get("id"), SessionResult[AsyncSession])
        assert_type(await client.list({"a": "b"}, limit=5), SessionListResult)
        assert_type(client.iter_sessions(), AsyncIterator[dict[str, str]])
        async with client.session(PARAMS) as session:
            assert_type(session, AsyncSession)
            assert_type(session.command, AsyncCommand)
            assert_type(session.file_system, AsyncFileSystem)
            result = await session.command.execute_command("ls", timeout_ms=1000, cwd="/", envs={"A": "b"})
            assert_type(result, CommandResult)
            assert_type(result.check(), CommandResult)
            assert_type(result.exit_code, int)
            assert_type(await session.command.run("ls"), CommandResult)
            assert_type(await session.code.create_context("r"), CodeContext)
            async for event in session.code.stream("1", "python"):
                assert_type(event, CodeStdout | CodeStderr | CodeShown | CodeCleared | CodeFailed | CodeEnded)
            files = session.file_system
            assert_type(await files.read_file("a"), FileContentResult)
            assert_type(await files.read_file("a", format="text"), FileContentResult)
            binary = await files.read_file("a", format="bytes")
            assert_type(binary, BinaryFileContentResult)
            assert_type(binary.content, bytes)
            assert_type(await files.write_file("a", "b", mode="append"), BoolResult)
            assert_type((await files.list_directory("/")).entries, list[DirectoryEntry])
            assert_type(await session.get_labels(), OperationResult)
            assert_type(await session.call_mcp_tool("shell", {"command": "ls"}), McpToolResult)
            assert_type((await session.list_mcp_tools()).tools, list[McpTool])
            assert_type((await session.get_metrics()).metrics, SessionMetrics | None)
            assert_type((await session.get_metrics()).unwrap().metrics, SessionMetrics)
            assert_type(await session.pause(), SessionPauseResult)
            assert_type(await session.delete(sync_context=True), DeleteResult)


def synchronous() -> None:
    with AgentBay("key") as client:
        assert_type(client, AgentBay)
        created = client.create()
        assert_type(created, SessionResult[Session])
        assert_type(created.session, Session | None)
        assert_type(created.unwrap().session, Session)
        assert_type(client.context.create("name").unwrap().context, Context)
        assert_type(client.iter_sessions(), Iterator[dict[str, str]])
        with client.session(PARAMS) as session:
            assert_type(session, Session)
            assert_type(session.command, Command)
            assert_type(session.file_system, FileSystem)
            assert_type(session.command.execute_command("ls"), CommandResult)
            assert_type(session.code.list_contexts(), list[CodeContext])
            for event in session.code.stream("1", context="mine"):
                assert_type(event, CodeStdout | CodeStderr | CodeShown | CodeCleared | CodeFailed | CodeEnded)
            assert_type(session.file_system.read_file("a"), FileContentResult)
            assert_type(session.file_system.read_file("a", format="bytes"), BinaryFileContentResult)
            assert_type(session.delete(), DeleteResult)


async def strict_and_local() -> None:
    """Raise errors strictly, and run a local runtime."""
    async with AsyncAgentBay.local(strict=True) as client:
        assert_type(client, AsyncAgentBay)
        try:
            session = (await client.create()).session
        except RateLimitError as error:
            assert_type(error.retry_after, float | None)
            assert_type(error.status_code, int | None)
        except AgentBayError as error:
            assert_type(error.request_id, str)
            assert_type(error.retryable, bool)
        else:
            assert session is not None
            assert_type((await session.command.run("true")).unwrap(), CommandResult)
    with AgentBay.local() as other:
        assert_type(other, AgentBay)


async def mistakes() -> None:
    """Make mistakes that type checkers must report."""
    client = AsyncAgentBay("key")
    await client.create({"labels": {}})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.get(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AgentBay(key="key")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    client.create().session  # type: ignore[attr-defined]  # pyright: ignore  # noqa: B018, PGH003
    agentbay.Nonsense  # type: ignore[attr-defined]  # pyright: ignore  # noqa: B018, PGH003


if __name__ == "__main__":
    asyncio.run(asynchronous())
