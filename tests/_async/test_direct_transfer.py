"""Files that go straight into a session and out of it, and by the store of contexts where that is not offered."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentbay import (
    AsyncAgentBay,
    AsyncSession,
    Config,
    ConflictError,
    PathIsDirectoryError,
    PathNotFoundError,
    PathPermissionError,
)
from tests.raw_calls import without_raw_calls

PLACE = "/tmp/file-transfer/sent"
SIZES = [0, 1, (1 << 20) + 7]


@pytest.mark.parametrize("way", ["direct", "by the store"])
async def test_files_of_any_size(session: AsyncSession, tmp_path: Path, way: str) -> None:
    """A file arrives whole by each way, and comes back the same."""
    if way == "by the store":
        without_raw_calls(session)
    for size in SIZES:
        here, back, seen = tmp_path / "here", tmp_path / "back", list[int]()
        here.write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
        sent = await session.file_system.upload_file(here, PLACE, progress_cb=seen.append)
        assert (sent.success, sent.bytes_sent, sent.http_status, sent.path) == (True, size, 200, PLACE), sent
        assert seen[-1:] == [size] * bool(size)
        got = await session.file_system.download_file(PLACE, back)
        assert (got.success, got.bytes_received, got.local_path) == (True, size, str(back)), got
        assert back.read_bytes() == here.read_bytes()


@pytest.mark.parametrize("way", ["direct", "by the store"])
async def test_progress_that_makes_calls(bay: AsyncAgentBay, tmp_path: Path, way: str) -> None:
    """What is told of the progress is waited for, and a transfer takes the connection of no other call."""
    (tmp_path / "here").write_bytes(bytes(3 << 20))
    config = Config(endpoint=bay.client.settings.url)
    async with AsyncAgentBay(bay.api_key, config, max_connections=1) as narrow, narrow.session() as session:
        if way == "by the store":
            without_raw_calls(session)
        seen = list[bool]()

        async def report(_: int) -> None:
            seen.append((await session.file_system.list_directory("/tmp")).success)

        (await session.file_system.upload_file(tmp_path / "here", PLACE, progress_cb=report)).unwrap()
        uploaded = len(seen)
        (await session.file_system.download_file(PLACE, tmp_path / "back", progress_cb=report)).unwrap()
        assert 0 < uploaded < len(seen)
        assert all(seen)


async def test_any_place(session: AsyncSession, tmp_path: Path) -> None:
    """Directories above a file are made, its mode stays, and a relative path begins at home."""
    (tmp_path / "a").write_text("new")
    assert await session.file_system.upload_file(tmp_path / "a", "deep/er/a")
    assert (await session.command.run("cat deep/er/a; chmod 751 deep/er/a")).output == "new"
    assert await session.file_system.upload_file(tmp_path / "a", "deep/er/a")
    assert (await session.command.run("stat -c %a deep/er/a; find / -name '.agentbay-*' 2>/dev/null")).output == "751\n"


async def test_failures_have_their_class(session: AsyncSession, tmp_path: Path) -> None:
    """A refusal is the error of the system, and names the path in the session."""
    files = session.file_system
    (tmp_path / "a").write_text("new")
    onto = await files.upload_file(tmp_path / "a", "/tmp")
    assert isinstance(onto.exception, PathIsDirectoryError)
    assert "/tmp" in (onto.error_message or "")
    await session.command.run("mkdir closed; chmod 500 closed")
    assert isinstance((await files.upload_file(tmp_path / "a", "closed/a")).exception, PathPermissionError)
    missing = await files.download_file("/tmp/none", tmp_path / "b")
    assert isinstance(missing.exception, PathNotFoundError)
    assert isinstance((await files.download_file("/tmp", tmp_path / "b")).exception, PathIsDirectoryError)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    await session.pause()
    paused = await files.upload_file(tmp_path / "a", "a")
    assert isinstance(paused.exception, ConflictError)
    assert "paused" in str(paused.exception)
    assert isinstance((await files.download_file("a", tmp_path / "b")).exception, ConflictError)
    await session.resume()


@pytest.mark.parametrize("way", ["direct", "by scripts"])
async def test_bytes_of_any_kind(session: AsyncSession, way: str) -> None:
    """Bytes are written, appended and read as they are, by each way."""
    if way == "by scripts":
        without_raw_calls(session)
    files, content = session.file_system, bytes(range(256)) * 5000
    for mode, expected in (("overwrite", content), ("append", content * 2), ("overwrite", content)):
        (await files.write_file("raw", content, mode)).unwrap()
        assert (await files.read_file("raw", format="bytes")).content == expected
    text = "é\n" * (3 << 20)
    (await files.write_file("text", text)).unwrap()
    assert (await files.read_file("text")).content == text
    assert (await session.command.run("find / -name '.agentbay-*' 2>/dev/null")).output == ""


async def test_a_file_too_large_for_one_answer(session: AsyncSession, tmp_path: Path) -> None:
    """Reading it at once is refused, and the error names the way that has no limit."""
    await session.command.run("truncate -s 300M large; printf end >> large")
    refused = await session.file_system.read_file("large", format="bytes")
    assert "256 MiB" in refused.error_message
    assert "download_file" in refused.error_message
    got = await session.file_system.download_file("large", tmp_path / "large")
    assert got.bytes_received == (300 << 20) + 3
