"""The registry of context names in a bucket, with one object for each name."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

from agentbay._lazy_attrs import define
from agentbay.local.contexts.object_store import MAX_CONCURRENT_REQUESTS, ObjectStoreClient, VersionConflict

_PREFIX = "names/"


@define(frozen=True, slots=False)
class NameOwner:
    """The context that has a name.

    Attributes:
        created: When the context was made, in seconds since 1970.
    """

    id: str
    created: float


class NameRegistry:
    """The names of all runtimes on a bucket.

    A name belongs to one context.
    """

    def __init__(self, object_store: ObjectStoreClient) -> None:
        self._object_store = object_store
        self._cache: dict[str, tuple[str, str, NameOwner]] = {}  # (version, name, owner) by object path

    def find(self, name: str) -> NameOwner | None:
        """Return the owner of a name, if there is one."""
        try:
            found = self._object_store.get(_path(name))
        except FileNotFoundError:
            return None
        return _parse_entry(found.body)[1]

    def claim(self, name: str, owner: NameOwner) -> NameOwner:
        """Claim a free name by a conditional put, and return its owner.

        Of several runtimes that race for a name, one wins.
        """
        body = json.dumps({"name": name, "id": owner.id, "created": owner.created}).encode()
        try:
            self._object_store.put_if_version(_path(name), body, version="")
        except VersionConflict:
            # Another runtime may have released the name between the two requests.
            return self.find(name) or self.claim(name, owner)
        return owner

    def release(self, name: str) -> None:
        """Delete a name."""
        self._object_store.delete([_path(name)])

    def all(self) -> dict[str, NameOwner]:
        """Return the owners of all names."""
        listed = {one.path: one.version for one in self._object_store.list(_PREFIX)}
        self._cache = {path: entry for path, entry in self._cache.items() if listed.get(path) == entry[0]}
        with ThreadPoolExecutor(MAX_CONCURRENT_REQUESTS) as threads:
            list(threads.map(self._load_into_cache, listed.keys() - self._cache.keys()))
        return {name: owner for _, name, owner in self._cache.values()}

    def _load_into_cache(self, path: str) -> None:
        try:
            found = self._object_store.get(path)
        except FileNotFoundError:  # deleted since it was listed
            return
        self._cache[path] = (found.version, *_parse_entry(found.body))


def _path(name: str) -> str:
    # Hashed, since a name can be longer than an object key and have characters that keys cannot have.
    return _PREFIX + hashlib.sha256(name.encode()).hexdigest()


def _parse_entry(body: bytes) -> tuple[str, NameOwner]:
    fields = json.loads(body)
    return str(fields["name"]), NameOwner(str(fields["id"]), float(fields["created"]))
