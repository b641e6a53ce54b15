"""What one context in a bucket holds: names, modes and times, and which object has the content of each file.

It is one object of the bucket, and whoever puts it decides a commit; see `bucket.py`. No I/O here.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentbay.local.contexts import keys
from agentbay.local.contexts.contents import Entry, Step

_VERSION = 1
_KEPT = 3600.0  # seconds for which an object stays that no file has any more: a session may be reading it


@dataclass(frozen=True, slots=True)
class File:
    """A file; `blob` names the object with its content, `expires` is in seconds since 1970."""

    blob: str
    size: int
    mode: int
    mtime_ns: int
    expires: float | None = None
    archive: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(slots=True)
class Folder:
    """A directory."""

    mode: int = 0o755
    mtime_ns: int = field(default_factory=time.time_ns)
    children: dict[str, Node] = field(default_factory=dict)


Node = File | Link | Folder


class Manifest:
    """A tree of names.

    Attributes:
        epoch: How often the context has been cleared.
        gone: Objects that no file has any more, and since when.
    """

    def __init__(self) -> None:
        self.epoch, self._top = 0, Folder()
        self.gone: dict[str, float] = {}

    # from and to an object

    @classmethod
    def read(cls, body: bytes) -> Manifest:
        """Read what `write` has written.

        Raises:
            ValueError: It is damaged, or of a later version.
        """
        try:
            facts = json.loads(zlib.decompress(body))
            if facts["version"] != _VERSION:
                raise ValueError(f"it has version {facts['version']}, and this runtime knows {_VERSION}")
            made = cls()
            made.epoch, made.gone = facts["epoch"], facts["gone"]
            made._top = _read_folder(facts["top"])
        except (zlib.error, KeyError, TypeError, IndexError) as error:
            raise ValueError("it is damaged") from error
        return made

    def write(self) -> bytes:
        """Write all of it."""
        facts = {"version": _VERSION, "epoch": self.epoch, "gone": self.gone, "top": _write_folder(self._top)}
        return zlib.compress(json.dumps(facts, separators=(",", ":")).encode(), 1)

    # what there is

    def file(self, key: str) -> File:
        """Return a file.

        Raises:
            FileNotFoundError: There is none.
        """
        node = self._node(keys.parts_of(key))
        if not isinstance(node, File) or _is_over(node, time.time()):
            raise FileNotFoundError(key)
        return node

    def children(self, key: str) -> list[Entry]:
        """List the files and folders of a folder, sorted by name."""
        folder, now = self._node(keys.parts_of(key)), time.time()
        if not isinstance(folder, Folder):
            return []
        found = sorted(folder.children.items(), key=lambda child: keys.encode(child[0]))
        return [_describe(name, node) for name, node in found if not isinstance(node, Link) and not _is_over(node, now)]

    def below(self, key: str, only: str = "") -> list[Entry]:
        """List all that is below a key, or at `only` below it."""
        node, now = self._node(keys.parts_of(keys.join(key, only))), time.time()
        if node is None or (not only and not isinstance(node, Folder)):
            return []
        found = [(only, node)] if only else []
        return [_describe(path, one) for path, one in (*found, *_walk(node, only)) if not _is_over(one, now)]

    def archives(self, top: str) -> list[str]:
        """Return the keys below `top` that upload mode Archive has made."""
        found = _walk(self._node(keys.parts_of(top)), "")
        return [keys.join(top, path) for path, node in found if isinstance(node, File) and node.archive]

    def blobs(self) -> set[str]:
        """The objects that files have, or had until a moment ago."""
        return {node.blob for _, node in _walk(self._top, "") if isinstance(node, File)} | set(self.gone)

    # changes; done twice, they do no more

    def do(self, step: Step, blobs: Mapping[str, File]) -> None:
        """Do a step of a commit; `blobs` are the staged files."""
        match step:
            case ["put", key, name, expires, archive]:
                staged = blobs[name]
                made = File(staged.blob, staged.size, staged.mode, staged.mtime_ns, expires, archive)
                self._set(key, made)
            case ["link", key, target]:
                self._set(key, Link(target))
            case ["dir", key, mode]:
                self._folder(keys.parts_of(key)).mode = mode | 0o700
            case ["delete", key]:
                self.remove(key, full=False)
            case unknown:
                raise ValueError(unknown)

    def remove(self, key: str, *, full: bool = True) -> bool:
        """Delete a file, a link or a folder (`full`: also one with something in it); False if there is none."""
        *above, name = keys.parts_of(key)
        folder = self._node(above)
        if not isinstance(folder, Folder) or name not in folder.children:
            return False
        node = folder.children[name]
        if full or not isinstance(node, Folder) or not node.children:
            self._forget(folder.children.pop(name))
        return True

    def clear(self) -> None:
        """Delete everything, and begin another epoch."""
        self._forget(self._top)
        self._top, self.epoch = Folder(), self.epoch + 1

    def is_due(self) -> bool:
        """Whether anything is overdue, or can be let go."""
        now = time.time()
        overdue = any(_is_over(node, now) for _, node in _walk(self._top, ""))
        return overdue or any(since < now - _KEPT for since in self.gone.values())

    def expire(self) -> None:
        """Delete what is overdue."""
        now = time.time()
        for path in [path for path, node in _walk(self._top, "") if _is_over(node, now)]:
            self.remove("/" + path)

    def let_go(self) -> list[str]:
        """Return, and forget, the objects that nobody can be reading any more."""
        due = [blob for blob, since in self.gone.items() if since < time.time() - _KEPT]
        for blob in due:
            del self.gone[blob]
        return due

    def _node(self, parts: list[str]) -> Node | None:
        node: Node | None = self._top
        for part in parts:
            node = node.children.get(part) if isinstance(node, Folder) else None
        return node

    def _folder(self, parts: list[str]) -> Folder:
        """Return a folder, made with those above it; what is in the way and is none goes."""
        folder = self._top
        for part in parts:
            node = folder.children.get(part)
            if not isinstance(node, Folder):
                self._forget(node)
                node = folder.children[part] = Folder()
            folder = node
        return folder

    def _set(self, key: str, node: File | Link) -> None:
        *above, name = keys.parts_of(key)
        children = self._folder(above).children
        if children.get(name) != node:
            self._forget(children.get(name))
            children[name] = node

    def _forget(self, node: Node | None) -> None:
        for _, one in (("", node), *_walk(node, "")):
            if isinstance(one, File):
                self.gone[one.blob] = time.time()


def _walk(node: Node | None, path: str) -> Iterator[tuple[str, Node]]:
    """Yield all below a folder, sorted by name, each folder before what is in it."""
    if not isinstance(node, Folder):
        return
    pending = [(path, node)]
    while pending:
        top, folder = pending.pop()
        if top != path:
            yield top, folder
        below: list[tuple[str, Folder]] = []
        for name, child in sorted(folder.children.items()):
            place = f"{top}/{name}" if top else name
            if isinstance(child, Folder):
                below.append((place, child))
            else:
                yield place, child
        pending += reversed(below)


def _is_over(node: Node, now: float) -> bool:
    return isinstance(node, File) and node.expires is not None and node.expires <= now


def _describe(path: str, node: Node) -> Entry:
    match node:
        case File():
            return Entry(path, "file", node.mode, node.size, node.mtime_ns, held=node.blob)
        case Link():
            return Entry(path, "link", 0o777, 0, 0, target=node.target)
        case Folder():
            return Entry(path, "dir", node.mode, 0, node.mtime_ns)


def _write_folder(folder: Folder) -> list[Any]:
    return [folder.mode, folder.mtime_ns, {name: _write_node(node) for name, node in folder.children.items()}]


def _write_node(node: Node) -> Any:
    match node:
        case File():
            return [node.blob, node.size, node.mode, node.mtime_ns, node.expires, node.archive]
        case Link():
            return node.target
        case Folder():
            return _write_folder(node)


def _read_folder(facts: Any) -> Folder:
    mode, mtime_ns, children = facts
    return Folder(mode, mtime_ns, {name: _read_node(node) for name, node in children.items()})


def _read_node(facts: Any) -> Node:
    if isinstance(facts, str):
        return Link(facts)
    return _read_folder(facts) if len(facts) == 3 else File(*facts)
