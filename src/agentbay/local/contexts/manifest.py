"""The manifest of a context: its names, modes, times and blobs.

A manifest is one object of the bucket, and putting it decides a commit (see `bucket_backend.py`). No I/O happens here.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentbay.local.contexts import keys
from agentbay.local.contexts.backend import CommitStep
from agentbay.local.contexts.entry import Entry

_VERSION = 1
_UNREFERENCED_TTL_SECONDS = 3600.0  # a session may still be reading a blob that no file refers to any more


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A file.

    Attributes:
        blob: The name of the object with its content.
        size: Bytes.
        expires: Seconds since 1970.
        archive: Made by upload mode Archive.
    """

    blob: str
    size: int
    mode: int
    mtime_ns: int
    expires: float | None = None
    archive: bool = False


@dataclass(frozen=True, slots=True)
class ManifestLink:
    target: str


@dataclass(slots=True)
class ManifestFolder:
    mode: int = 0o755
    mtime_ns: int = field(default_factory=time.time_ns)
    children: dict[str, Node] = field(default_factory=dict)


Node = ManifestFile | ManifestLink | ManifestFolder


class Manifest:
    """The tree of names of one context.

    Attributes:
        epoch: How often the context has been cleared.
        unreferenced: Since when no file refers to a blob, in seconds since 1970. It is the tombstone of that blob.
    """

    def __init__(self) -> None:
        self.epoch, self._top = 0, ManifestFolder()
        self.unreferenced: dict[str, float] = {}

    # serialisation

    @classmethod
    def from_bytes(cls, body: bytes) -> Manifest:
        """Parse a serialised manifest.

        Raises:
            ValueError: It is damaged, or its version is unknown.
        """
        try:
            fields = json.loads(zlib.decompress(body))
            if fields["version"] != _VERSION:
                raise ValueError(f"it has version {fields['version']}, and this runtime knows {_VERSION}")
            made = cls()
            made.epoch, made.unreferenced = fields["epoch"], fields["gone"]
            made._top = _read_folder(fields["top"])
        except (zlib.error, KeyError, TypeError, IndexError) as error:
            raise ValueError("it is damaged") from error
        return made

    def to_bytes(self) -> bytes:
        # json.dumps writes the lone surrogates of names that are not UTF-8 as ASCII escapes, so encode() cannot fail.
        fields = {"version": _VERSION, "epoch": self.epoch, "gone": self.unreferenced, "top": _write_folder(self._top)}
        return zlib.compress(json.dumps(fields, separators=(",", ":")).encode(), 1)

    # queries

    def file(self, key: str) -> ManifestFile:
        """Return the file at a key.

        Raises:
            FileNotFoundError: There is none.
        """
        node = self._node(keys.split(key))
        # An expired file stays in the manifest until the next cleanup, which comes once a day at most.
        if not isinstance(node, ManifestFile) or _is_expired(node, time.time()):
            raise FileNotFoundError(key)
        return node

    def children(self, key: str) -> list[Entry]:
        """List the files and directories in a directory, sorted by name."""
        folder, now = self._node(keys.split(key)), time.time()
        if not isinstance(folder, ManifestFolder):
            return []
        found = sorted(folder.children.items(), key=lambda child: keys.encode(child[0]))
        return [
            _describe(name, node)
            for name, node in found
            if not isinstance(node, ManifestLink) and not _is_expired(node, now)
        ]

    def list_below(self, key: str, only: str = "") -> list[Entry]:
        """List all that is below a key, or at `only` below it."""
        node, now = self._node(keys.split(keys.join(key, only))), time.time()
        if node is None or (not only and not isinstance(node, ManifestFolder)):
            return []
        found = [(only, node)] if only else []
        return [_describe(path, one) for path, one in (*found, *_walk(node, only)) if not _is_expired(one, now)]

    def find_replaced(self, written: Iterable[str]) -> Iterator[Entry]:
        """Yield what writing files at keys would remove: directories there, and files above.

        The entries have whole keys as paths. A key that ends with a slash is a directory to be made.
        """
        for key in written:
            parts = keys.split(key)
            above = parts if key.endswith("/") else parts[:-1]
            for length in range(1, len(above) + 1):
                if isinstance(node := self._node(parts[:length]), ManifestFile):
                    yield _describe("/" + "/".join(parts[:length]), node)
            if above != parts and isinstance(node := self._node(parts), ManifestFolder):
                yield _describe(key, node)

    def archive_keys(self, top: str) -> list[str]:
        """Return the keys below `top` that upload mode Archive has made."""
        found = _walk(self._node(keys.split(top)), "")
        return [keys.join(top, path) for path, node in found if isinstance(node, ManifestFile) and node.archive]

    def referenced_blobs(self) -> set[str]:
        """Return the blobs that files refer to, or did until lately."""
        return {node.blob for _, node in _walk(self._top, "") if isinstance(node, ManifestFile)} | set(
            self.unreferenced
        )

    # changes, all of them idempotent

    def apply_step(self, step: CommitStep, blobs: Mapping[str, ManifestFile]) -> None:
        """Apply a step of a commit.

        Args:
            blobs: The uploaded files by their names in the staging directory.
        """
        match step:
            case ["put", key, name, expires, archive]:
                staged = blobs[name]
                made = ManifestFile(staged.blob, staged.size, staged.mode, staged.mtime_ns, expires, archive)
                self._set(key, made)
            case ["link", key, target]:
                self._set(key, ManifestLink(target))
            case ["dir", key, mode]:
                self._ensure_folder(keys.split(key)).mode = mode | 0o700
            case ["delete", key]:
                self.delete_path(key, full=False)
            case unknown:
                raise ValueError(unknown)

    def delete_path(self, key: str, *, full: bool = True) -> bool:
        """Delete a file, link or directory, and return whether it existed.

        Args:
            full: Delete a directory with its contents too.
        """
        *above, name = keys.split(key)
        folder = self._node(above)
        if not isinstance(folder, ManifestFolder) or name not in folder.children:
            return False
        node = folder.children[name]
        if full or not isinstance(node, ManifestFolder) or not node.children:
            self._mark_unreferenced(folder.children.pop(name))
        return True

    def clear(self) -> None:
        """Delete everything and begin another epoch."""
        self._mark_unreferenced(self._top)
        self._top, self.epoch = ManifestFolder(), self.epoch + 1

    def needs_cleanup(self) -> bool:
        """Whether a file has expired, or a blob can be garbage collected."""
        now = time.time()
        overdue = any(_is_expired(node, now) for _, node in _walk(self._top, ""))
        return overdue or any(since < now - _UNREFERENCED_TTL_SECONDS for since in self.unreferenced.values())

    def expire(self) -> None:
        """Delete expired files."""
        now = time.time()
        for path in [path for path, node in _walk(self._top, "") if _is_expired(node, now)]:
            self.delete_path("/" + path)

    def pop_unreferenced(self) -> list[str]:
        """Remove and return the blobs that no session can be reading any more."""
        due = [blob for blob, since in self.unreferenced.items() if since < time.time() - _UNREFERENCED_TTL_SECONDS]
        for blob in due:
            del self.unreferenced[blob]
        return due

    def _node(self, parts: list[str]) -> Node | None:
        node: Node | None = self._top
        for part in parts:
            node = node.children.get(part) if isinstance(node, ManifestFolder) else None
        return node

    def _ensure_folder(self, parts: list[str]) -> ManifestFolder:
        """Return a directory, made with its parents. A file in the way is replaced."""
        folder = self._top
        for part in parts:
            node = folder.children.get(part)
            if not isinstance(node, ManifestFolder):
                self._mark_unreferenced(node)
                node = folder.children[part] = ManifestFolder()
            folder = node
        return folder

    def _set(self, key: str, node: ManifestFile | ManifestLink) -> None:
        *above, name = keys.split(key)
        children = self._ensure_folder(above).children
        if children.get(name) != node:
            self._mark_unreferenced(children.get(name))
            children[name] = node

    def _mark_unreferenced(self, node: Node | None) -> None:
        for _, one in (("", node), *_walk(node, "")):
            if isinstance(one, ManifestFile):
                self.unreferenced[one.blob] = time.time()


def _walk(node: Node | None, path: str) -> Iterator[tuple[str, Node]]:
    """Yield all below a directory, sorted by name, each directory before its contents."""
    if not isinstance(node, ManifestFolder):
        return
    pending = [(path, node)]
    while pending:
        top, folder = pending.pop()
        if top != path:
            yield top, folder
        below: list[tuple[str, ManifestFolder]] = []
        for name, child in sorted(folder.children.items()):
            place = f"{top}/{name}" if top else name
            if isinstance(child, ManifestFolder):
                below.append((place, child))
            else:
                yield place, child
        pending += reversed(below)


def _is_expired(node: Node, now: float) -> bool:
    return isinstance(node, ManifestFile) and node.expires is not None and node.expires <= now


def _describe(path: str, node: Node) -> Entry:
    match node:
        case ManifestFile():
            return Entry(path, "file", node.mode, node.size, node.mtime_ns, content_id=node.blob)
        case ManifestLink():
            return Entry(path, "link", 0o777, 0, 0, target=node.target)
        case ManifestFolder():
            return Entry(path, "dir", node.mode, 0, node.mtime_ns)


def _write_folder(folder: ManifestFolder) -> list[Any]:
    return [folder.mode, folder.mtime_ns, {name: _write_node(node) for name, node in folder.children.items()}]


def _write_node(node: Node) -> Any:
    match node:
        case ManifestFile():
            return [node.blob, node.size, node.mode, node.mtime_ns, node.expires, node.archive]
        case ManifestLink():
            return node.target
        case ManifestFolder():
            return _write_folder(node)


def _read_folder(fields: Any) -> ManifestFolder:
    mode, mtime_ns, children = fields
    return ManifestFolder(mode, mtime_ns, {name: _read_node(node) for name, node in children.items()})


def _read_node(fields: Any) -> Node:
    if isinstance(fields, str):
        return ManifestLink(fields)
    return _read_folder(fields) if len(fields) == 3 else ManifestFile(*fields)
