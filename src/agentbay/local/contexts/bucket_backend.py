"""The storage backend in a bucket: immutable blobs, and one manifest for each context.

The files of a commit are uploaded as blobs under new names, which show nowhere. The manifest is put last, by
compare-and-swap against the one that it was made from: that decides the commit for all runtimes that share the bucket.
A runtime that is killed before leaves orphaned blobs only. Garbage collection deletes orphans after a day, and blobs
that no file refers to any more after an hour.
"""

from __future__ import annotations

import io
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from agentbay.errors import NotFoundError
from agentbay.local.contexts.backend import CommitStep, StagingDirectory, check_replacements
from agentbay.local.contexts.directory_tree import ContextTree
from agentbay.local.contexts.entry import Entry, Owner
from agentbay.local.contexts.errors import bucket_busy, bucket_damaged, context_not_found, mounts_not_supported
from agentbay.local.contexts.manifest import Manifest, ManifestFile
from agentbay.local.contexts.name_registry import NameRegistry
from agentbay.local.contexts.object_store import MAX_CONCURRENT_REQUESTS, ObjectStoreClient, VersionConflict
from agentbay.local.state_dir import remove_tree

_TOP, _MANIFEST, _BLOBS = "contexts", "manifest", "files"
_MAX_CACHED_MANIFESTS = 64  # in memory, and fetched again only when they have changed
_MAX_PUT_ATTEMPTS = 20  # to put a manifest before another runtime does
_ORPHAN_AGE_SECONDS = 86400.0  # no upload takes longer, so an older blob was left by a killed runtime
_PREFETCH_LIMIT_BYTES = 1 << 20  # for each file, and as many files as there are threads


class BucketBackend:
    """The contents of all contexts below a prefix of a bucket."""

    def __init__(self, object_store: ObjectStoreClient, directory: Path, owner: Owner) -> None:
        self._object_store, self._owner = object_store, owner
        self.name_registry = NameRegistry(object_store)
        self._staging = directory / "staging"
        self._staging.mkdir(exist_ok=True)
        self._manifests: OrderedDict[str, tuple[str, Manifest]] = OrderedDict()  # (version, manifest) by context id
        self._uploaded_blobs: dict[Path, dict[str, ManifestFile]] = {}  # by staging directory and staged name
        self._last_sweep = 0.0  # for orphaned blobs, in seconds since 1970

    def create(self, context_id: str) -> None:
        self._object_store.put_if_version(_manifest(context_id), Manifest().to_bytes(), version="")

    def delete(self, context_id: str) -> None:
        self._manifests.pop(context_id, None)
        # Without its manifest the context is gone for all runtimes, and a kill from here on leaves orphaned blobs only.
        self._object_store.delete([_manifest(context_id)])
        self._object_store.delete([one.path for one in self._object_store.list(f"{_TOP}/{context_id}/")])

    def clear(self, context_id: str) -> None:
        self._update_manifest(context_id, Manifest.clear)

    def epoch(self, context_id: str) -> int:
        return self._load_manifest(context_id)[1].epoch

    @contextmanager
    def staging(self) -> Iterator[StagingDirectory]:
        staging = StagingDirectory(self._staging, self._owner)
        try:
            yield staging
        finally:
            self._uploaded_blobs.pop(staging.directory, None)
            remove_tree(staging.directory)

    def prepare(self, context_id: str, staging: StagingDirectory, steps: Sequence[CommitStep]) -> None:
        """Upload the staged files as blobs."""
        names = [step[2] for step in steps if step[0] == "put"]

        def put(name: str) -> ManifestFile:
            path = Path(staging.path(name))
            status, blob = path.stat(), secrets.token_hex(16)
            self._object_store.put_file(_blob(context_id, blob), path)
            path.unlink()
            return ManifestFile(blob, status.st_size, status.st_mode & 0o777, status.st_mtime_ns)

        with ThreadPoolExecutor(MAX_CONCURRENT_REQUESTS) as threads:
            self._uploaded_blobs[staging.directory] = dict(zip(names, threads.map(put, names), strict=True))

    def commit(
        self, context_id: str, staging: StagingDirectory, steps: Sequence[CommitStep], check: Callable[[], None]
    ) -> None:
        blobs = self._uploaded_blobs[staging.directory]

        def apply(manifest: Manifest) -> None:
            # Each attempt checks again, since it works on the manifest of the commit that has won before.
            check()
            check_replacements(manifest, steps)
            for step in steps:
                manifest.apply_step(step, blobs)

        self._update_manifest(context_id, apply)

    def open_reader(self, context_id: str) -> _BucketReader:
        return _BucketReader(self._object_store, context_id, self._load_manifest(context_id)[1])

    def delete_path(self, context_id: str, key: str) -> bool:
        found: list[bool] = []
        self._update_manifest(context_id, lambda manifest: found.append(manifest.delete_path(key)))
        # Each attempt has added a value, and the last one is of the manifest that was put.
        return found[-1]

    def contexts_to_clean(self) -> Iterable[str]:
        """Return all contexts, but only once a day: listing a bucket is slow."""
        if self._last_sweep > time.time() - _ORPHAN_AGE_SECONDS:
            return []
        found = sorted({one.path.split("/")[1] for one in self._object_store.list(f"{_TOP}/")})
        self._last_sweep = time.time()
        return found

    def clean_up(self, context_id: str) -> None:
        before = time.time() - _ORPHAN_AGE_SECONDS
        # Listed before the manifest is read: a blob that is committed in between then counts as referenced.
        old = [
            one.path for one in self._object_store.list(f"{_TOP}/{context_id}/{_BLOBS}/") if one.last_modified < before
        ]
        try:
            if self._load_manifest(context_id)[1].needs_cleanup():
                self._update_manifest(context_id, Manifest.expire)
            referenced = {_blob(context_id, blob) for blob in self._load_manifest(context_id)[1].referenced_blobs()}
        except NotFoundError:  # a delete that was not finished
            referenced = set()
        self._object_store.delete([path for path in old if path not in referenced])

    def recover(self, known: set[str]) -> None:
        """Empty the staging directory. The bucket belongs to other runtimes too."""
        for left in self._staging.iterdir():
            remove_tree(left)

    def tree(self, context_id: str) -> ContextTree:
        raise mounts_not_supported()

    def _load_manifest(self, context_id: str) -> tuple[str, Manifest]:
        """Return the current version and manifest of a context."""
        cached = self._manifests.get(context_id)
        try:
            path = _manifest(context_id)
            found = self._object_store.get_if_changed(path, cached[0]) if cached else self._object_store.get(path)
        except FileNotFoundError:
            raise context_not_found(context_id) from None
        if found is not None:
            try:
                cached = found.version, Manifest.from_bytes(found.body)
            except ValueError as error:
                raise bucket_damaged(context_id, str(error)) from error
        assert cached is not None
        self._cache_manifest(context_id, cached)
        return cached

    def _update_manifest(self, context_id: str, change: Callable[[Manifest], object]) -> None:
        """Change a manifest by compare-and-swap, and retry after a lost race."""
        for _ in range(_MAX_PUT_ATTEMPTS):
            version, manifest = self._load_manifest(context_id)
            self._manifests.pop(context_id)  # until it is put, the changed manifest is no version that exists
            change(manifest)
            unreferenced = manifest.pop_unreferenced()
            try:
                version = self._object_store.put_if_version(_manifest(context_id), manifest.to_bytes(), version=version)
            except VersionConflict:
                # Another writer was first: make the change again, in its version.
                continue
            self._cache_manifest(context_id, (version, manifest))
            # Not before the put: the manifest that wins a race may still name these blobs.
            self._object_store.delete([_blob(context_id, blob) for blob in unreferenced])
            return
        raise bucket_busy(context_id)

    def _cache_manifest(self, context_id: str, found: tuple[str, Manifest]) -> None:
        self._manifests[context_id] = found
        self._manifests.move_to_end(context_id)
        while len(self._manifests) > _MAX_CACHED_MANIFESTS:
            self._manifests.popitem(last=False)


class _BucketReader:
    """Read access to one version of a manifest."""

    def __init__(self, object_store: ObjectStoreClient, context_id: str, manifest: Manifest) -> None:
        self._object_store, self._context_id, self._manifest = object_store, context_id, manifest

    def open(self, key: str) -> IO[bytes]:
        file = self._manifest.file(key)
        return self._object_store.open(_blob(self._context_id, file.blob), file.size)

    def children(self, key: str) -> list[Entry]:
        return self._manifest.children(key)

    def snapshot(self, key: str, staging: StagingDirectory, only: str = "") -> _BucketSnapshot:
        return _BucketSnapshot(self._object_store, self._context_id, self._manifest.list_below(key, only))

    def archive_keys(self, top: str) -> list[str]:
        return self._manifest.archive_keys(top)


class _BucketSnapshot:
    """A snapshot by references, as blobs are immutable and outlive it."""

    def __init__(self, object_store: ObjectStoreClient, context_id: str, entries: list[Entry]) -> None:
        self._object_store, self._context_id, self.entries = object_store, context_id, entries
        self.unreadable: dict[str, str] = {}

    def open(self, entry: Entry) -> IO[bytes]:
        return self._object_store.open(_blob(self._context_id, entry.content_id), entry.size)

    def iterate_files(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, IO[bytes]]]:
        """Open files one after the other, and prefetch small ones in parallel."""
        pending: deque[tuple[Entry, Future[IO[bytes]]]] = deque()
        with ThreadPoolExecutor(MAX_CONCURRENT_REQUESTS) as threads:
            for entry in entries:
                pending.append((entry, threads.submit(self._prefetch, entry)))
                if len(pending) >= MAX_CONCURRENT_REQUESTS:
                    yield from self._next(pending)
            while pending:
                yield from self._next(pending)

    def _next(self, pending: deque[tuple[Entry, Future[IO[bytes]]]]) -> Iterator[tuple[Entry, IO[bytes]]]:
        entry, future = pending.popleft()
        try:
            file = future.result()
        except FileNotFoundError:
            self.unreadable[entry.path] = "The bucket has lost its content"
            return
        with file:
            yield entry, file

    def _prefetch(self, entry: Entry) -> IO[bytes]:
        if entry.size > _PREFETCH_LIMIT_BYTES:
            return self.open(entry)
        return io.BytesIO(self._object_store.get(_blob(self._context_id, entry.content_id)).body)


def _manifest(context_id: str) -> str:
    return f"{_TOP}/{context_id}/{_MANIFEST}"


def _blob(context_id: str, blob: str) -> str:
    return f"{_TOP}/{context_id}/{_BLOBS}/{blob}"
