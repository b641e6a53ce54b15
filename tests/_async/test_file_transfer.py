"""File transfers by presigned URLs over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentbay import AgentBayError, AsyncAgentBay, AsyncFileTransfer, AsyncSession, Config, DownloadResult, UploadResult
from tests.scripted_contexts import SECRET, ContextService, Refusal, Stored, serving

CONTEXT, PLACE = "SdkCtx-transfer", "/tmp/file-transfer/a.bin"


@pytest.fixture
def service() -> Iterator[ContextService]:
    with serving() as made:
        yield made


@pytest.fixture
async def session(service: ContextService) -> AsyncIterator[AsyncSession]:
    async with AsyncAgentBay("akm-test", Config(endpoint=service.url), timeout=60) as bay:
        yield AsyncSession(bay, "session-1")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(256)) * 10_000)
    return path


async def test_upload(session: AsyncSession, service: ContextService, here: Path) -> None:
    """The context is found once, the file goes up, the session fetches it."""
    seen = list[int]()
    result = await session.file_system.upload_file(here, PLACE, content_type="image/png", progress_cb=seen.append)
    assert result.success
    assert (result.http_status, result.bytes_sent, result.path) == (200, 2_560_000, PLACE)
    assert seen[-1] == 2_560_000
    assert len(seen) > 1
    assert len(result.etag or "") == 34
    assert result.request_id_upload_url
    assert result.request_id_sync
    assert result.error_message is None or result.error_message == ""
    assert service.files[CONTEXT, PLACE].data == here.read_bytes()
    assert service.transfers[0][2]["content-type"] == "image/png"
    assert service.names()[:3] == ["GetAndLoadInternalContext", "GetContextFileUploadUrl", "SyncContext"]
    assert set(service.names()[3:]) == {"GetContextInfo"}
    assert service.calls[2][1]["Mode"] == service.calls[3][1]["TaskType"] == "download"
    await session.file_system.upload_file(str(here), PLACE)
    assert service.names().count("GetAndLoadInternalContext") == 1


async def test_download(session: AsyncSession, service: ContextService, tmp_path: Path) -> None:
    """The session stores the file, then it comes down whole."""
    service.files[CONTEXT, PLACE] = Stored.of(b"12345")
    seen, target = list[int](), tmp_path / "new" / "b.bin"
    result = await session.file_system.download_file(PLACE, str(target), progress_cb=seen.append)
    assert result.success
    assert (result.http_status, result.bytes_received, result.path, result.local_path) == (200, 5, PLACE, str(target))
    assert (target.read_bytes(), seen) == (b"12345", [5])
    assert service.names()[:3] == ["GetAndLoadInternalContext", "SyncContext", "GetContextInfo"]
    assert service.names()[-1] == "GetContextFileDownloadUrl"
    assert service.calls[1][1]["Mode"] == service.calls[2][1]["TaskType"] == "upload"
    kept = await session.file_system.download_file(PLACE, target, overwrite=False)
    assert (kept.success, kept.error_message) == (False, f"Destination exists and overwrite=False: {target}")


async def test_context_path(session: AsyncSession, service: ContextService) -> None:
    """The transfer path is returned, or None if it is unknown."""
    assert await session.file_system.get_file_transfer_context_path() == "/tmp/file-transfer"
    found = AsyncSession(session.agent_bay, "session-1")
    assert await found.file_system.get_file_transfer_context_path() == "/tmp/file-transfer"
    service.refuse["GetAndLoadInternalContext"] = Refusal("SomeCode", "no")
    assert await AsyncSession(session.agent_bay, "s").file_system.get_file_transfer_context_path() is None


@pytest.mark.parametrize(
    ("fault", "message", "status"),
    [
        ({"lose_uploads": True}, "does not have the file", 200),
        ({"cut_uploads": True}, "1280000 bytes of 2560000", 200),
        ({"forbidden": True}, "AccessDenied", 403),
        ({"refuse": {"GetContextFileUploadUrl": Refusal("SomeCode", "some message")}}, "some message", 400),
        ({"refuse": {"SyncContext": Refusal("SomeCode", "some message", plain=True)}}, "some message", 200),
        ({"after_sync": ["Running", "Failed"], "task_error": "disk full"}, "disk full", 200),
        ({"after_sync": ["Running"]}, "did not copy", 200),
    ],
    ids=["lost", "cut", "forbidden", "no URL", "no sync", "failed sync", "late sync"],
)
async def test_upload_that_fails(
    session: AsyncSession, service: ContextService, here: Path, fault: dict[str, Any], message: str, status: int
) -> None:
    """A failed upload reports how far it came, and never the URL."""
    vars(service).update(fault)
    result = await session.file_system.upload_file(
        here, PLACE, wait_timeout=0.5 if message == "did not copy" else 60, poll_interval=0.1
    )
    assert (result.success, result.http_status, result.path) == (False, status, PLACE)
    assert message in (result.error_message or "")
    assert SECRET not in f"{result!r} {result.exception!r}"
    with pytest.raises(AgentBayError):
        result.unwrap()


async def test_download_that_fails(session: AsyncSession, service: ContextService, tmp_path: Path) -> None:
    """An interrupted download leaves nothing behind."""
    service.files[CONTEXT, PLACE] = Stored.of(b"12345")
    service.short = 99
    result = await session.file_system.download_file(PLACE, tmp_path / "b")
    assert (result.success, result.bytes_received, list(tmp_path.iterdir())) == (False, 0, [])
    missing = await session.file_system.download_file("/tmp/none", tmp_path / "b")
    assert (missing.http_status, list(tmp_path.iterdir())) == (404, [])


async def test_local_file_is_looked_at_first(session: AsyncSession, service: ContextService, tmp_path: Path) -> None:
    """Nothing is sent without a local file."""
    result = await session.file_system.upload_file(tmp_path / "none", PLACE)
    assert result.error_message == f"Local file not found: {tmp_path / 'none'}"
    assert not await session.file_system.upload_file(tmp_path, PLACE)
    assert service.calls == []


async def test_without_waiting(session: AsyncSession, service: ContextService, here: Path, tmp_path: Path) -> None:
    """wait=False begins the copy and does not poll."""
    service.after_sync = ["Running"]
    assert await session.file_system.upload_file(here, PLACE, wait=False)
    assert await session.file_system.download_file(PLACE, tmp_path / "b", wait=False)
    assert "GetContextInfo" not in service.names()


async def test_only_the_path_itself_counts(session: AsyncSession, service: ContextService, here: Path) -> None:
    """Tasks of another path or direction are ignored."""
    service.task(CONTEXT, "/tmp/other", "download", "Success")
    service.task(CONTEXT, PLACE, "upload", "Success")
    service.after_sync = ["Running", "Running", "Finished"]
    began = service.names()
    assert await session.file_system.upload_file(here, PLACE, poll_interval=0.05)
    assert service.names()[len(began) :].count("GetContextInfo") == 3


async def test_options_of_the_transfer(session: AsyncSession, service: ContextService, here: Path) -> None:
    """Redirects can be refused, and a stalled transfer ends in time."""
    transfer = AsyncFileTransfer(session.agent_bay, session, http_timeout=1.5, follow_redirects=False)
    service.redirects = 1
    refused = await transfer.upload(here, PLACE)
    assert "redirected" in (refused.error_message or "")
    assert (await session.file_system.upload_file(here, PLACE)).success
    service.stall = 5.0
    late = await transfer.download(PLACE, here.with_name("b"))
    assert "stood still" in (late.error_message or "")


async def test_own_http_client(service: ContextService, here: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A given client carries transfers without credentials or logged URLs."""
    caplog.set_level("DEBUG")
    async with (
        httpx.AsyncClient(auth=("user", "password"), trust_env=False) as http_client,
        AsyncAgentBay("akm-test", Config(endpoint=service.url), http_client=http_client) as bay,
    ):
        session = AsyncSession(bay, "session-1")
        assert (await session.file_system.upload_file(here, PLACE)).success
        assert (await session.file_system.download_file(PLACE, here.with_name("b"))).success
    assert here.with_name("b").read_bytes() == here.read_bytes()
    assert all("authorization" not in headers for _, _, headers in service.transfers)
    assert SECRET not in caplog.text


async def test_results_take_the_reference_s_positions() -> None:
    """Results take positional arguments as in the reference."""
    sent = UploadResult(True, "r1", "r2", 200, "etag", 5, "/a")
    assert (sent.success, sent.bytes_sent, sent.path, sent.error_message, sent.request_id) == (True, 5, "/a", None, "")
    got = DownloadResult(False, "r1", "r2", 404, 0, "/a", "b", "no")
    assert (bool(got), got.local_path, got.error_message) == (False, "b", "no")
