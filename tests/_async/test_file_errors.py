"""Typed errors of file operations, and `exists`."""

from __future__ import annotations

import errno
import pickle
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentbay import (
    AsyncAgentBay,
    AsyncFileSystem,
    AsyncSession,
    FileError,
    PathExistsError,
    PathIsDirectoryError,
    PathNotDirectoryError,
    PathNotFoundError,
    PathPermissionError,
)
from tests._async.scripted_files import client_of
from tests.scripted import Service, tool_says

_HOME = "/home/wuying"


@pytest.fixture(scope="module")
async def home() -> AsyncIterator[AsyncSession]:
    async with AsyncAgentBay.local() as bay, bay.session() as session:
        made = "mkdir -p d/full; echo text > a; echo x > d/full/x; mkdir -m 000 closed; ln -s nowhere dangling"
        (await session.command.run(made)).check()
        yield session


@pytest.fixture(params=["by link", "by service"])
async def files(home: AsyncSession, request: pytest.FixtureRequest) -> AsyncIterator[AsyncFileSystem]:
    link = home.link_url
    if request.param == "by service":
        home.link_url = ""
    yield home.file_system
    home.link_url = link


def check_failure(result: Any, kind: type[FileError], builtin: type[Exception], number: int, path: str) -> None:
    assert not result
    with pytest.raises(kind) as caught:
        result.unwrap()
    error = caught.value
    assert error is result.exception
    assert isinstance(error, builtin)
    assert (error.errno, error.path) == (number, path)


async def test_what_is_not_there(files: AsyncFileSystem) -> None:
    """Each method says in its class that there is no such file."""
    for result in (
        await files.read_file("none"),
        await files.read_file("none", format="bytes"),
        await files.get_file_info("none"),
        await files.list_directory("none"),
        await files.delete_file("none"),
        await files.edit_file("none", [{"oldText": "a", "newText": "b"}]),
        await files.search_files("none", "*"),
        await files.move_file("none", "other"),
    ):
        error = result.exception
        assert isinstance(error, PathNotFoundError)
        assert isinstance(error, FileNotFoundError)
        assert (error.errno, (error.path or "").rsplit("/", 1)[-1]) == (errno.ENOENT, "none")


async def test_a_directory_instead_of_a_file(files: AsyncFileSystem) -> None:
    """Reading, writing and editing a directory fails as Python's own functions do."""
    for result in (
        await files.read_file("d"),
        await files.write_file("d", "text"),
        await files.write_file("d", b"\xff"),
        await files.edit_file("d", [{"oldText": "a", "newText": "b"}]),
    ):
        assert isinstance(result.exception, PathIsDirectoryError)
        assert isinstance(result.exception, IsADirectoryError)
        assert result.exception.errno == errno.EISDIR


async def test_a_file_instead_of_a_directory(files: AsyncFileSystem) -> None:
    """What lies below a file cannot be read, written or listed."""
    for result in (
        await files.read_file("a/b"),
        await files.write_file("a/b", "text"),
        await files.write_file("a/b", b"\xff"),
        await files.write_file("a/b/c", b"\xff"),
        await files.list_directory("a"),
        await files.search_files("a", "*"),
    ):
        assert isinstance(result.exception, PathNotDirectoryError), result
        assert isinstance(result.exception, NotADirectoryError)


async def test_what_exists(files: AsyncFileSystem) -> None:
    """A directory is not made where a file is."""
    check_failure(await files.create_directory("a"), PathExistsError, FileExistsError, errno.EEXIST, f"{_HOME}/a")


async def test_what_is_not_allowed(files: AsyncFileSystem) -> None:
    """What permissions or a read-only file system forbid is a PermissionError."""
    closed = await files.read_file("closed/x")
    check_failure(closed, PathPermissionError, PermissionError, errno.EACCES, f"{_HOME}/closed/x")
    for content in "text", b"\xff":
        for path in "closed/x", "/usr/x", "/etc/passwd":
            result = await files.write_file(path, content)
            assert isinstance(result.exception, PathPermissionError), result
            assert isinstance(result.exception, PermissionError)
    assert isinstance((await files.delete_file("/etc/passwd")).exception, PermissionError)


async def test_several_files(files: AsyncFileSystem) -> None:
    """Of several files each has its own typed error."""
    read = (await files.read_multiple_files(["a", "none", "d"])).unwrap()
    assert read.contents == {"a": "text\n"}
    assert list(read.exceptions) == list(read.errors) == ["none", "d"]
    assert isinstance(read.exceptions["none"], FileNotFoundError)
    assert isinstance(read.exceptions["d"], IsADirectoryError)
    assert str(read.exceptions["d"]) == read.errors["d"]


async def test_exists(files: AsyncFileSystem) -> None:
    """`exists` tells what is there, and raises where nobody may look."""
    assert await files.exists("a")
    assert await files.exists("~/d/full")
    assert not await files.exists("none")
    assert not await files.exists("a/b")
    assert not await files.exists("dangling")
    with pytest.raises(PathPermissionError):
        await files.exists("closed/x")


async def test_methods_that_raise(files: AsyncFileSystem, tmp_path: Path) -> None:
    """`push`, `pull` and `watch` raise the same classes."""
    with pytest.raises(PathNotFoundError) as caught:
        await files.pull("none", tmp_path)
    assert caught.value.path == "none"
    (tmp_path / "x").write_text("x")
    with pytest.raises(PathNotFoundError):
        await files.push(tmp_path / "none", "d")
    with pytest.raises(PathNotDirectoryError):
        await files.push(tmp_path / "x", "d")
    with pytest.raises(PathNotDirectoryError):
        await files.push(tmp_path, "a")
    with pytest.raises(PathPermissionError):
        await files.push(tmp_path, "closed")
    with pytest.raises(FileNotFoundError):
        async with files.watch("none"):
            pass


async def test_an_error_travels(files: AsyncFileSystem) -> None:
    """A typed error survives pickling, with what its builtin base keeps."""
    error = (await files.read_file("none")).exception
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, FileNotFoundError)
    assert isinstance(copy, PathNotFoundError)
    assert (copy.errno, copy.path, str(copy)) == (errno.ENOENT, copy.filename, str(error))


_CLOUD = "Execution failed. Error code:-32602 Error message: Failed to {}: /tmp/x, error: {}"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("No such file or directory", FileNotFoundError),
        ("Permission denied", PermissionError),
        ("Is a directory", IsADirectoryError),
        ("Not a directory", NotADirectoryError),
        ("File exists", FileExistsError),
    ],
)
async def test_texts_of_the_cloud(words: str, kind: type[Exception]) -> None:
    """A service that sends texts alone gets the same classes."""
    with Service(tool_says(_CLOUD.format("read file", words), is_error=True)) as service:
        async with client_of(service) as (files, _):
            for result in (
                await files.read_file("/tmp/x"),
                await files.write_file("/tmp/x", "text"),
                await files.get_file_info("/tmp/x"),
                await files.list_directory("/tmp/x"),
                await files.create_directory("/tmp/x"),
                await files.delete_file("/tmp/x"),
                await files.move_file("/tmp/x", "/tmp/y"),
                await files.edit_file("/tmp/x", [{"oldText": "a", "newText": "b"}]),
                await files.search_files("/tmp/x", "*"),
                await files.read_multiple_files(["/tmp/x"]),
            ):
                assert isinstance(result.exception, FileError)
                assert isinstance(result.exception, kind)
                assert result.exception.path == "/tmp/x"


async def test_exists_on_the_cloud() -> None:
    """`exists` reads the text of the cloud."""
    missing = _CLOUD.format("get file status", "No such file or directory")
    closed = _CLOUD.format("get file status", "Permission denied")
    with Service(
        [tool_says("size: 3"), tool_says(missing, is_error=True), tool_says(closed, is_error=True)]
    ) as service:
        async with client_of(service) as (files, _):
            assert await files.exists("/tmp/x")
            assert not await files.exists("/tmp/x")
            with pytest.raises(PermissionError):
                await files.exists("/tmp/x")
