"""The names of contexts in a bucket, for all runtimes that share it: an object for each."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from agentbay.local.contexts.object_store import MAX_CONCURRENT_REQUESTS, ObjectStoreClient, VersionConflict

_PREFIX = "names/"


@dataclass(frozen=True, slots=True)
class NameOwner:
    """The context that has a name, and when it was made, in seconds since 1970."""

    id: str
    created: float


class NameRegistry:
    """The names; no two runtimes can give one to two contexts."""

    def __init__(self, remote: ObjectStoreClient) -> None:
        self._object_store = remote
        self._known: dict[str, tuple[str, str, NameOwner]] = {}  # version, name and whose, by the object's path

    def find(self, name: str) -> NameOwner | None:
        """Return who has a name."""
        try:
            found = self._object_store.get(_path(name))
        except FileNotFoundError:
            return None
        return _read(found.body)[1]

    def claim(self, name: str, named: NameOwner) -> NameOwner:
        """Give a name that nobody has; return who then has it."""
        body = json.dumps({"name": name, "id": named.id, "created": named.created}).encode()
        try:
            self._object_store.put_if_version(_path(name), body, instead_of="")
        except VersionConflict:
            return self.find(name) or self.claim(name, named)
        return named

    def release(self, name: str) -> None:
        """Make a name nobody's."""
        self._object_store.delete([_path(name)])

    def all(self) -> dict[str, NameOwner]:
        """Return all names."""
        listed = {one.path: one.version for one in self._object_store.list(_PREFIX)}
        self._known = {path: known for path, known in self._known.items() if listed.get(path) == known[0]}
        with ThreadPoolExecutor(MAX_CONCURRENT_REQUESTS) as threads:
            list(threads.map(self._read, listed.keys() - self._known.keys()))
        return {name: named for _, name, named in self._known.values()}

    def _read(self, path: str) -> None:
        try:
            found = self._object_store.get(path)
        except FileNotFoundError:  # taken since
            return
        self._known[path] = (found.version, *_read(found.body))


def _path(name: str) -> str:
    # a name may be longer than a key, and hold what keys may not
    return _PREFIX + hashlib.sha256(name.encode()).hexdigest()


def _read(body: bytes) -> tuple[str, NameOwner]:
    facts = json.loads(body)
    return str(facts["name"]), NameOwner(str(facts["id"]), float(facts["created"]))
