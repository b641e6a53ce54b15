"""Which error of the system the text of a file tool tells of."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from agentbay import (
    FileError,
    PathExistsError,
    PathIsDirectoryError,
    PathNotDirectoryError,
    PathNotFoundError,
    PathPermissionError,
)
from agentbay._local_files import LocalSource, check_target, list_local_files
from agentbay._transport.file_errors import file_text_or_raise, read_file_error
from agentbay._transport.reply import Reply
from agentbay._wire.tools import ToolReply

_PREFIX = "Execution failed. Error code:-32602 Error message: "
_KINDS = [
    ("No such file or directory", PathNotFoundError, FileNotFoundError, errno.ENOENT),
    ("Permission denied", PathPermissionError, PermissionError, errno.EACCES),
    ("Operation not permitted", PathPermissionError, PermissionError, errno.EPERM),
    ("Read-only file system", PathPermissionError, PermissionError, errno.EROFS),
    ("Is a directory", PathIsDirectoryError, IsADirectoryError, errno.EISDIR),
    ("Not a directory", PathNotDirectoryError, NotADirectoryError, errno.ENOTDIR),
    ("File exists", PathExistsError, FileExistsError, errno.EEXIST),
    ("Directory not empty", FileError, FileError, errno.ENOTEMPTY),
    ("No space left on device", FileError, FileError, errno.ENOSPC),
]


@pytest.mark.parametrize(("words", "kind", "builtin", "number"), _KINDS)
def test_words_of_linux(words: str, kind: type[FileError], builtin: type[Exception], number: int) -> None:
    """Each text of the service becomes the error of its class, with number and path."""
    error = read_file_error(f"{_PREFIX}Failed to read file: /d/a b, error: {words}", "a b", request_id="r-1")
    assert type(error) is kind
    assert isinstance(error, builtin)
    assert (error.errno, error.path, error.filename, error.request_id) == (number, "/d/a b", "/d/a b", "r-1")
    assert words in error.message


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("ENOENT: no such file or directory, open '/x'", errno.ENOENT),
        ("EISDIR: illegal operation on a directory, read", errno.EISDIR),
        ("open /x: permission denied", errno.EACCES),
        ("Access denied - path outside of the allowed directories: /x", errno.EACCES),
        ("File not found: /x", errno.ENOENT),
        ("stat /x: not a directory", errno.ENOTDIR),
        ("sh: 7: cannot create /x: Read-only file system\n", errno.EROFS),
        (
            "mkdir: cannot create directory '/x': File exists\nsh: 3: cannot open: No such file or directory",
            errno.ENOENT,
        ),
        ("The file does not hold the text to be replaced: 'Permission denied'", None),
        ("Could not find an exact match for 'is a directory' in /x", None),
        ("EWHATEVER: nobody knows", None),
        ("", None),
    ],
)
def test_other_words(text: str, number: int | None) -> None:
    """Texts of shells and of other file servers are understood, and what only quotes such words is not."""
    assert read_file_error(text, "/x").errno == number


@pytest.mark.parametrize(
    "path", ["/Permission denied", "/a, error: Is a directory", "/EACCES: x", "/a: Not a directory"]
)
def test_misleading_paths(path: str) -> None:
    """A path that is called like an error does not change the class."""
    error = read_file_error(f"{_PREFIX}Failed to get file status: {path}, error: No such file or directory", path)
    assert (type(error), error.path) == (PathNotFoundError, path)
    assert type(read_file_error(f"open {path}: file exists", path)) is PathExistsError


def test_names_that_are_words() -> None:
    """A name that is a word of the text takes nothing away from it."""
    assert type(read_file_error("a: a: Is a directory", "a")) is PathIsDirectoryError
    assert type(read_file_error("file: file exists", "file")) is PathExistsError
    assert type(read_file_error("Not a directory: Permission denied", "Not a directory")) is PathPermissionError


def test_structured_answer() -> None:
    """The name of an error beside the text goes before the text."""
    facts = {"error": {"code": "EISDIR", "path": "/d"}}
    tool = ToolReply(
        content=[{"type": "text", "text": "Failed: Permission denied"}], is_error=True, structured_content=facts
    )
    with pytest.raises(PathIsDirectoryError) as caught:
        file_text_or_raise(Reply(action="read_file", data=tool, request_id="r-1"), "/asked")
    assert (caught.value.path, caught.value.code, caught.value.request_id) == ("/d", "EISDIR", "r-1")


def test_local_files(tmp_path: Path) -> None:
    """Errors of files on this machine have the same classes."""
    with pytest.raises(PathNotFoundError, match="Local file not found") as missing:
        LocalSource(tmp_path / "none")
    assert (missing.value.errno, missing.value.path) == (errno.ENOENT, str(tmp_path / "none"))
    with pytest.raises(PathIsDirectoryError):
        check_target(tmp_path, overwrite=True)
    (tmp_path / "here").write_text("x")
    with pytest.raises(PathExistsError):
        check_target(tmp_path / "here", overwrite=False)
    with pytest.raises(PathNotDirectoryError):
        LocalSource(tmp_path / "here" / "below")
    assert [file.name for file in list_local_files(tmp_path)] == ["here"]
