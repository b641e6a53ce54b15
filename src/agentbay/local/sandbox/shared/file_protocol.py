"""The request and reply classes of the file operations in a sandbox.

On the channel a request is the name of its class and its fields as a JSON object. The reply comes through a pipe:
the payload, the reply's fields as JSON, and the length of that JSON in 8 bytes. The length stands last, so that an
operation can still report an error after half of its payload.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypedDict, TypeVar, dataclass_transform, get_args

REPLY_LENGTH = struct.Struct(">Q")
CONTENT_HEAD, CONTENT_MARK = struct.Struct(">cQ"), b"\1"  # a reply without content begins with a brace instead


@dataclass_transform()
class _Record:
    """A value with the fields that its class declares.

    A dataclass would make the zygote import `inspect`.
    """

    def __init__(self, *values: Any, **fields: Any) -> None:
        vars(self).update(zip(type(self).__annotations__, values, strict=False))
        vars(self).update(fields)

    def to_json(self) -> dict[str, Any]:
        """Return the fields that were given.

        The others have their defaults.
        """
        return vars(self)


class FileReply(_Record):
    """What a file operation returns beside its payload."""


ReplyT = TypeVar("ReplyT", bound=FileReply)


class FileRequest(_Record, Generic[ReplyT]):
    """A file operation.

    Relative paths, and `~`, start at the sandbox's home.
    """

    reply_class: ClassVar[type[FileReply]]

    def __init_subclass__(cls) -> None:
        cls.reply_class = get_args(cls.__orig_bases__[0])[0]  # type: ignore[attr-defined]  # set by Generic

    def parse_reply(self, fields: dict[str, Any]) -> ReplyT:
        """Return the reply that a JSON object holds."""
        return self.reply_class(**fields)  # type: ignore[return-value]  # the class that ReplyT stands for


class PathReply(FileReply):
    """The absolute path that an operation worked on."""

    path: str


class ReadReply(FileReply):
    """The payload is the content.

    `size` is that of the whole file, in bytes.
    """

    size: int
    read: int


class WriteReply(FileReply):
    """How many bytes were written, and whether the file is new."""

    path: str
    written: int
    created: bool


class EditReply(FileReply):
    """The change as a unified diff.

    "" for files too large to compare.
    """

    path: str
    diff: str


class FileStatus(TypedDict):
    """What stat(2) says of a file.

    Times are seconds since 1970.
    """

    size: int
    is_directory: bool
    is_file: bool
    permissions: str  # octal, 3 or 4 digits
    mtime: float
    atime: float
    ctime: float


class EntryStatus(FileStatus):
    """A directory entry."""

    name: str
    is_symlink: bool


class ListReply(FileReply):
    """The entries of a directory, sorted by name."""

    entries: list[EntryStatus]


class StatReply(FileReply):
    """What stat(2) says of a path.

    Times are seconds since 1970.
    """

    path: str
    is_symlink: bool
    size: int
    is_directory: bool
    is_file: bool
    permissions: str  # octal, 3 or 4 digits
    mtime: float
    atime: float
    ctime: float


class SearchReply(FileReply):
    """The paths that match, sorted."""

    matches: list[str]


class SnapshotReply(FileReply):
    """Each path below `path` with [is directory, mtime in nanoseconds, size, inode].

    `now` is the sandbox's time in nanoseconds; `watched` says whether inotify watches cover the whole tree.
    """

    path: str
    found: dict[str, list[int]]
    now: int
    watched: bool


class SendTreeReply(FileReply):
    """A reply without fields, whose payload is a tree stream."""


class ReceiveTreeReply(FileReply):
    """The fingerprint of each file that was written, and the first errors."""

    facts: dict[str, list[int]]
    errors: list[dict[str, str]]


class ReadFile(FileRequest[ReadReply]):
    """Send `length` bytes of a file from `offset`.

    A length of 0 means all.
    """

    path: str
    offset: int = 0
    length: int = 0


class SendFile(FileRequest[ReadReply]):
    """Send `length` bytes of a file of any size, from `offset` on.

    Before the bytes comes `CONTENT_HEAD`, a mark and their number. If the file becomes shorter meanwhile, the operation
    ends without a reply.
    """

    path: str
    offset: int
    length: int


class WriteFile(FileRequest[WriteReply]):
    """Replace a file atomically by the input, or append to it.

    Attributes:
        sync: Whether to wait for the disk.
        size: The bytes that the input shall have; a shorter one changes nothing. None takes what comes.
        token: In the name of the file that is incomplete; "" chooses one.
    """

    path: str
    append: bool = False
    sync: bool = False
    size: int | None = None
    token: str = ""


class RemoveUnfinished(FileRequest[PathReply]):
    """Remove what a killed WriteFile with that token has left beside its path."""

    path: str
    token: str


class EditFile(FileRequest[EditReply]):
    """Replace the first occurrence of each text, all or none.

    The input is a JSON list of pairs. It fails with ENOSPC if the new file takes more than there is room for.

    Attributes:
        room: Bytes that the new file may have. For more than the default, the caller must measure the free space first.
    """

    path: str
    dry_run: bool = False
    room: int = 1 << 20


class ListDirectory(FileRequest[ListReply]):
    """List a directory."""

    path: str


class StatPath(FileRequest[StatReply]):
    """Describe what a path leads to."""

    path: str


class MakeDirectory(FileRequest[PathReply]):
    """Make a directory and its parents.

    An existing one is left as it is.
    """

    path: str


class RemovePath(FileRequest[PathReply]):
    """Remove a file or a link, or with `recursive` also a directory."""

    path: str
    recursive: bool = False


class MovePath(FileRequest[PathReply]):
    """Rename a path.

    It fails with EXDEV between file systems. Home, /tmp and each mounted context are separate file systems.
    """

    source: str
    target: str


class MoveAcross(FileRequest[PathReply]):
    """Move a path to another file system, all of it or nothing.

    Attributes:
        room: The bytes that the copy may take, or None for any number.
    """

    source: str
    target: str
    room: int | None = None


class SearchTree(FileRequest[SearchReply]):
    """Find paths by name.

    `exclude` holds patterns for names and for paths relative to `path`.
    """

    path: str
    pattern: str
    exclude: Sequence[str] = ()


class SnapshotTree(FileRequest[SnapshotReply]):
    """Describe a tree.

    With `watch`, the input is an inotify descriptor, which gets a watch on each directory.
    """

    path: str
    watch: bool = False


class SendTree(FileRequest[SendTreeReply]):
    """Stream a tree, or `only` a path below it.

    The input says, as JSON, which files the caller has.
    """

    path: str
    only: str
    white_lists: Sequence[Mapping[str, Any]]


class ReceiveTree(FileRequest[ReceiveTreeReply]):
    """Make the tree that the input, a tree stream, holds.

    Attributes:
        token: In the name of a file that is still incomplete.
        replace_anything: Whether a file or link may replace a directory, device, socket or FIFO.
        room: The bytes that the tree may take, or None for any number. Files beyond it are errors of the reply.
    """

    path: str
    token: str
    replace_anything: bool = True
    room: int | None = None


class RemoveIncomplete(FileRequest[PathReply]):
    """Remove the file that a killed ReceiveTree has left incomplete below its path."""

    path: str
    token: str
