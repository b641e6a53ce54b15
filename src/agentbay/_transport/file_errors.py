"""Find the errno that a failed file operation reports.

The local runtime sends its name beside the text. Other services send only a text, whose wording is matched.
"""

from __future__ import annotations

import errno
import re
from typing import Any, NoReturn

from .._wire.tools import ToolReply
from ..errors import (
    FileError,
    PathExistsError,
    PathIsDirectoryError,
    PathNotDirectoryError,
    PathNotFoundError,
    PathPermissionError,
)
from .reply import Reply

_CLASSES: dict[int, type[FileError]] = {
    errno.ENOENT: PathNotFoundError,
    errno.EACCES: PathPermissionError,
    errno.EPERM: PathPermissionError,
    errno.EROFS: PathPermissionError,
    errno.EISDIR: PathIsDirectoryError,
    errno.ENOTDIR: PathNotDirectoryError,
    errno.EEXIST: PathExistsError,
}
# The words of Linux, of programs that run there, and of file servers written in Go and for Node.js.
_WORDS = {
    "ENOENT": r"no such file or directory|(?:the )?(?:file|path|directory)? ?(?:does not exist|not found)",
    "EACCES": r"permission denied|access denied",
    "EPERM": "operation not permitted",
    "EROFS": "read-only file system",
    "EISDIR": "(?:it )?is a directory|illegal operation on a directory",
    "ENOTDIR": "(?:it is |is )?not a directory",
    "EEXIST": "(?:file|destination)? ?(?:already )?exists",
    "EINVAL": "not a regular file",
    "ENOTEMPTY": "directory not empty",
    "ENOSPC": "no space left on device",
    "EDQUOT": "disk quota exceeded",
    "EFBIG": "file too large",
    "ENAMETOOLONG": "file name too long",
    "ELOOP": "too many levels of symbolic links",
    "EBUSY": "device or resource busy",
    "ETXTBSY": "text file busy",
    "EXDEV": "invalid cross-device link",
}
# Only as a whole clause: a message may also quote what a file holds.
_REASON = re.compile(
    r"(?:^|: |- )\s*(?:"
    + "|".join(f"(?P<{name}>{words})" for name, words in _WORDS.items())
    + r")(?=\s*(?:$|[,.;:(]| -))",
    re.IGNORECASE | re.MULTILINE,
)
_NAMED = re.compile(r"\b(E[A-Z]{3,})\b: ")  # as Node.js writes it
_FAILURE = re.compile(r"Failed to [^:,]*: (?P<path>.*), error: (?P<reason>.*)\Z", re.DOTALL)


def make_file_error(message: str, *, number: int | None = None, path: str | None = None, **context: Any) -> FileError:
    """Return the subclass of FileError that belongs to an errno.

    Args:
        message: What happened.
        number: The errno, or None if it is not known.
        path: The path at fault.
        **context: Further facts, as for every error.
    """
    kind = FileError if number is None else _CLASSES.get(number, FileError)
    return kind(message, errno=number, path=path, **context)


def raise_os_error(error: OSError, path: object, message: str = "") -> NoReturn:
    """Raise the FileError for an OSError of this machine."""
    what = message or f"{path}: {error.strerror or error}"
    raise make_file_error(what, number=error.errno, path=str(path)) from error


def read_file_error(text: str, path: str | None = None, **context: Any) -> FileError:
    """Return the FileError that a text describes.

    Args:
        text: What the service says, which is the message.
        path: The path that was asked for.
        **context: Further facts, as for every error.
    """
    if failure := _FAILURE.search(text):
        path, reason = failure["path"], failure["reason"]
    else:
        reason = _without_path(text, path) if path else text
    return make_file_error(text, number=_find_number(reason), path=path, **context)


def file_text_or_raise(reply: Reply[ToolReply], path: str | None = None) -> str:
    """Return the text of a file tool's answer.

    Raises:
        FileError: If the tool reports a failure.
    """
    tool = reply.data_or_raise()
    if not tool.is_error:
        return tool.text
    text = tool.text or "The tool reports a failure and gives no reason."
    if is_system_error(tool):
        raise tool_file_error(tool, text, reply.request_id, path)
    raise read_file_error(text, path, code=tool.error_code, request_id=reply.request_id)


def is_system_error(tool: ToolReply) -> bool:
    """Return whether a failed answer names an errno, as the local runtime sends it."""
    return _number_of(tool.error_code) is not None


def tool_file_error(tool: ToolReply, text: str, request_id: str, path: str | None = None) -> FileError:
    """Return the FileError for the errno that a failed answer names."""
    details = {"path": tool.error_path or path, "code": tool.error_code, "request_id": request_id}
    return make_file_error(text, number=_number_of(tool.error_code), **details)


def _without_path(text: str, path: str) -> str:
    """Remove a path from a text: files can be named like errors."""
    if "/" in path:
        return text.replace(path, "")
    # A bare name may also be a word of the text, so it counts only where a path is named.
    return re.sub(rf"(?<!\w){re.escape(path)}(?=: |$)", "", text)


def _find_number(reason: str) -> int | None:
    named = _NAMED.search(reason)
    if named is not None and (number := _number_of(named[1])) is not None:
        return number
    found = list(_REASON.finditer(reason))
    # The last one is the cause: what stands before it says what was attempted.
    return _number_of(found[-1].lastgroup or "") if found else None


def _number_of(name: str) -> int | None:
    """Return the number that an error has on this machine."""
    number = getattr(errno, name, None)
    return number if isinstance(number, int) else None
