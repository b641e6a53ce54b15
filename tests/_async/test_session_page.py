"""What the contract's page of the session promises, on the local runtime.

The page's signatures are compared by `tests/test_reference.py`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import attrs
import pytest

from agentbay import (
    AsyncAgentBay,
    AsyncSession,
    ContextSync,
    CreateSessionParams,
    DeleteResult,
    OperationResult,
    SessionError,
    SessionInfo,
    SessionPauseResult,
    SessionResumeResult,
    SyncPolicy,
    UploadPolicy,
)
from agentbay._concurrency import async_sleep
from agentbay._wire.schema import pascal
from agentbay._wire.sessions import DesktopInfo, ResourceData
from tests.scripted import Service, hang_up, http, ok, refused

from .calls import client, handle


async def reach(session: AsyncSession, state: str) -> None:
    """Wait until the session is in a state."""
    until = time.monotonic() + 60
    while (await session.get_status()).status != state:
        assert time.monotonic() < until
        await async_sleep(0.05)


async def test_delete_releases_and_tells(bay: AsyncAgentBay) -> None:
    """`delete` succeeds with its own request id, and the session is gone."""
    results = []
    for _ in range(2):
        session = (await bay.create()).unwrap().session
        results.append(await session.delete())
        assert not await bay.get(session.session_id)
    assert all(type(result) is DeleteResult and result.success is True for result in results)
    assert [result.error_message for result in results] == ["", ""]
    assert results[0].request_id
    assert results[0].request_id != results[1].request_id


async def test_delete_uploads_contexts_when_asked(bay: AsyncAgentBay) -> None:
    """Contexts are uploaded before deletion only with `sync_context`."""
    context = (await bay.context.create("session-page")).unwrap().context
    policy = SyncPolicy(upload_policy=UploadPolicy(auto_upload=False))
    params = CreateSessionParams(context_syncs=[ContextSync(context.id, "/tmp/kept", policy)])
    for name in ("by-default", "asked-for"):
        session = (await bay.create(params)).unwrap().session
        (await session.file_system.write_file(f"/tmp/kept/{name}", "x")).unwrap()
        (await session.delete(**({"sync_context": True} if name == "asked-for" else {}))).unwrap()
        kept = [entry.file_name for entry in (await bay.context.list_files(context.id, "/tmp/kept")).entries]
        assert kept == (["asked-for"] if name == "asked-for" else [])


async def test_delete_that_fails() -> None:
    """A refusal is a failed result, a missing answer a SessionError."""
    with Service(refused("Forbidden.Session", 403)) as service:
        async with client(service.url) as bay:
            result = await handle(bay).delete()
    assert (result.success, bool(result.request_id)) == (False, True)
    assert "Forbidden.Session" in result.error_message
    for fault in (hang_up, http(200, b"<html>")):
        with Service(fault) as service:
            async with client(service.url) as bay:
                with pytest.raises(SessionError):
                    await handle(bay).delete()


async def test_labels(session: AsyncSession) -> None:
    """`set_labels` sets the labels that `get_labels` returns."""
    result = await session.set_labels({"project": "page"})
    assert type(result) is OperationResult and result.success  # noqa: PT018
    result = await session.get_labels()
    assert type(result) is OperationResult and result.data == {"project": "page"}  # noqa: PT018


async def test_info(session: AsyncSession) -> None:
    """`info` returns a SessionInfo of this session."""
    result = await session.info()
    assert type(result) is OperationResult
    assert type(result.data) is SessionInfo
    assert result.data.session_id == session.session_id


async def test_info_fills_every_field() -> None:
    """Each field of `SessionInfo` holds the reply's field of the same name."""
    desktop = {name: name for name in attrs.fields_dict(DesktopInfo)}
    facts = {name: name for name in attrs.fields_dict(ResourceData) if name != "desktop_info"}
    data = {pascal(name): name for name in facts}
    data["DesktopInfo"] = {pascal(name): name for name in desktop}
    with Service(ok(data)) as service:
        async with client(service.url) as bay:
            info = (await handle(bay).info()).unwrap().data
    assert attrs.asdict(info) == {name: name for name in attrs.fields_dict(SessionInfo)}


async def test_link(session: AsyncSession) -> None:
    """`get_link` needs no argument and returns a link of the session."""
    result = await session.get_link(protocol_type=None, port=30100, options=None)
    assert type(result) is OperationResult
    assert result.data.startswith("ws")


async def test_tools(session: AsyncSession) -> None:
    """`call_mcp_tool` calls a tool that `list_mcp_tools` lists."""
    tools = [tool.name for tool in (await session.list_mcp_tools(image_id=None)).tools]
    assert "shell" in tools
    result = await session.call_mcp_tool("shell", {"command": "echo hi"}, read_timeout=60_000, connect_timeout=50_000)
    assert result.success
    assert "hi" in result.data


async def test_pause_and_resume_wait(session: AsyncSession) -> None:
    """`pause` returns when the session is PAUSED, `resume` when it is RUNNING."""
    paused = await session.pause(timeout=60, poll_interval=0.1)
    assert type(paused) is SessionPauseResult and paused.success  # noqa: PT018
    assert (await session.get_status()).status == "PAUSED"
    resumed = await session.resume(timeout=60, poll_interval=0.1)
    assert type(resumed) is SessionResumeResult and resumed.success  # noqa: PT018
    assert (await session.get_status()).status == "RUNNING"


async def test_pause_and_resume_do_not_wait() -> None:
    """`pause_async` and `resume_async` make one call and do not poll."""
    for name, action in (("pause_async", "PauseSessionAsync"), ("resume_async", "ResumeSessionAsync")):
        with Service(ok()) as service:
            async with client(service.url) as bay:
                begin: Callable[[], Awaitable[object]] = getattr(handle(bay), name)
                assert await begin()
            assert [request.action for request in service.requests] == [action]


async def test_pause_and_resume_get_there(session: AsyncSession) -> None:
    """What `pause_async` and `resume_async` begin is completed."""
    assert type(await session.pause_async()) is SessionPauseResult
    await reach(session, "PAUSED")
    assert type(await session.resume_async()) is SessionResumeResult
    await reach(session, "RUNNING")
