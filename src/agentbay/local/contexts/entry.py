"""The types that context trees, backends and transfers share."""

from __future__ import annotations

from agentbay._lazy_attrs import define

Owner = tuple[int, int]  # user and group id


@define(frozen=True, slots=False)
class Entry:
    """A file, symbolic link or directory below some top.

    Attributes:
        path: Relative to that top.
        kind: "file", "link" or "dir".
        size: Bytes.
        target: Where a link leads.
        content_id: The name under which a snapshot finds the content of a file.
    """

    path: str
    kind: str
    mode: int
    size: int
    mtime_ns: int
    target: str = ""
    content_id: str = ""
