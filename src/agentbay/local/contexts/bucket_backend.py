"""What contexts hold, kept in a bucket: an object for each file that was ever put, and a manifest for each context.

The files of a commit first become objects under names of their own, which shows nowhere. The manifest is put last, in
the place of the one that it was made from: that decides the commit, for all runtimes that share the bucket. Killed
before, nothing has happened but objects that nobody has; they go after a day. One that a file had goes after an hour.
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
from agentbay.local.contexts.backend import CommitStep, Entry, Owner, StagingDirectory
from agentbay.local.contexts.directory_tree import ContextTree
from agentbay.local.contexts.errors import bucket_busy, bucket_damaged, context_not_found, mounts_not_supported
from agentbay.local.contexts.manifest import Manifest, ManifestFile
from agentbay.local.contexts.name_registry import NameRegistry
from agentbay.local.contexts.object_store import MAX_CONCURRENT_REQUESTS, ObjectStoreClient, VersionConflict
from agentbay.local.state_dir import remove_tree

_TOP, _MANIFEST, _BLOBS = "contexts", "manifest", "files"
_MAX_CACHED_MANIFESTS = 64  # manifests that are kept in memory, to be asked for only when they have changed
_ATTEMPTS = 20  # to put a manifest before another runtime does
_ORPHAN_AGE_SECONDS = 86400.0  # seconds after which an object that nobody has was left by a runtime that was killed
_PREFETCH_LIMIT_BYTES = 1 << 20  # bytes of files that are fetched ahead, as many as there are threads


class BucketBackend:
    """The contents in a bucket; see `Contents`."""

    def __init__(self, remote: ObjectStoreClient, directory: Path, owner: Owner) -> None:
        """Make a place on this disk for files on their way."""
        self._object_store, self._owner = remote, owner
        self.name_registry = NameRegistry(remote)
        self._staging = directory / "staging"
        self._staging.mkdir(exist_ok=True)
        self._manifests: OrderedDict[str, tuple[str, Manifest]] = OrderedDict()  # versions, by contexts' ids
        self._uploaded_blobs: dict[Path, dict[str, ManifestFile]] = {}  # what staged files have become
        self._swept = 0.0

    def create(self, context_id: str) -> None:
        """See `Contents`."""
        self._object_store.put_if_version(_manifest(context_id), Manifest().to_bytes(), instead_of="")

    def delete(self, context_id: str) -> None:
        """See `Contents`."""
        self._manifests.pop(context_id, None)
        self._object_store.delete([_manifest(context_id)])
        self._object_store.delete([one.path for one in self._object_store.list(f"{_TOP}/{context_id}/")])

    def clear(self, context_id: str) -> None:
        """See `Contents`."""
        self._update_manifest(context_id, Manifest.clear)

    def epoch(self, context_id: str) -> int:
        """See `Contents`."""
        return self._load_manifest(context_id)[1].epoch

    @contextmanager
    def staging(self) -> Iterator[StagingDirectory]:
        """See `Contents`."""
        directory = self._staging / secrets.token_hex(8)
        directory.mkdir()
        try:
            yield StagingDirectory(directory, self._owner)
        finally:
            self._uploaded_blobs.pop(directory, None)
            remove_tree(directory)

    def prepare(self, context_id: str, staging: StagingDirectory, steps: Sequence[CommitStep]) -> None:
        """Make objects of staged files."""
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
        """See `Contents`."""
        blobs = self._uploaded_blobs[staging.directory]

        def do(manifest: Manifest) -> None:
            check()
            for step in steps:
                manifest.apply_step(step, blobs)

        self._update_manifest(context_id, do)

    def open_reader(self, context_id: str) -> _BucketReader:
        """See `Contents`."""
        return _BucketReader(self._object_store, context_id, self._load_manifest(context_id)[1])

    def delete_path(self, context_id: str, key: str) -> bool:
        """See `Contents`."""
        found: list[bool] = []
        self._update_manifest(context_id, lambda manifest: found.append(manifest.delete_path(key)))
        return found[-1]

    def contexts_to_clean(self) -> Iterable[str]:
        """See `Contents`; objects that nobody has are looked for once a day."""
        if self._swept > time.time() - _ORPHAN_AGE_SECONDS:
            return []
        found = sorted({one.path.split("/")[1] for one in self._object_store.list(f"{_TOP}/")})
        self._swept = time.time()
        return found

    def clean_up(self, context_id: str) -> None:
        """See `Contents`."""
        before = time.time() - _ORPHAN_AGE_SECONDS
        old = [
            one.path for one in self._object_store.list(f"{_TOP}/{context_id}/{_BLOBS}/") if one.last_modified < before
        ]
        try:
            if self._load_manifest(context_id)[1].needs_cleanup():
                self._update_manifest(context_id, Manifest.expire)
            had = {_blob(context_id, blob) for blob in self._load_manifest(context_id)[1].referenced_blobs()}
        except NotFoundError:  # its deletion was not finished
            had = set()
        self._object_store.delete([path for path in old if path not in had])

    def recover(self, known: set[str]) -> None:
        """See `Contents`; what concerns others too is left to `tidy`."""
        for left in self._staging.iterdir():
            remove_tree(left)

    def tree(self, context_id: str) -> ContextTree:
        """See `Contents`."""
        raise mounts_not_supported()

    def _load_manifest(self, context_id: str) -> tuple[str, Manifest]:
        """Return a manifest as it is now, and its version."""
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
        """Change a manifest as one step, again if somebody else was faster."""
        for _ in range(_ATTEMPTS):
            version, manifest = self._load_manifest(context_id)
            self._manifests.pop(context_id)  # until it is put, what is in memory is true of nothing
            change(manifest)
            free = manifest.pop_unreferenced()
            try:
                version = self._object_store.put_if_version(
                    _manifest(context_id), manifest.to_bytes(), instead_of=version
                )
            except VersionConflict:
                continue
            self._cache_manifest(context_id, (version, manifest))
            self._object_store.delete([_blob(context_id, blob) for blob in free])
            return
        raise bucket_busy(context_id)

    def _cache_manifest(self, context_id: str, found: tuple[str, Manifest]) -> None:
        self._manifests[context_id] = found
        self._manifests.move_to_end(context_id)
        while len(self._manifests) > _MAX_CACHED_MANIFESTS:
            self._manifests.popitem(last=False)


class _BucketReader:
    """See `View`."""

    def __init__(self, remote: ObjectStoreClient, context_id: str, manifest: Manifest) -> None:
        self._object_store, self._context_id, self._manifest = remote, context_id, manifest

    def open(self, key: str) -> IO[bytes]:
        """See `View`."""
        file = self._manifest.file(key)
        return self._object_store.open(_blob(self._context_id, file.blob), file.size)

    def children(self, key: str) -> list[Entry]:
        """See `View`."""
        return self._manifest.children(key)

    def snapshot(self, key: str, staging: StagingDirectory, only: str = "") -> _BucketSnapshot:
        """See `View`."""
        return _BucketSnapshot(self._object_store, self._context_id, self._manifest.list_below(key, only))

    def archive_keys(self, top: str) -> list[str]:
        """See `View`."""
        return self._manifest.archive_keys(top)


class _BucketSnapshot:
    """See `Snapshot`: the objects stay as they are, and for an hour in any case."""

    def __init__(self, remote: ObjectStoreClient, context_id: str, entries: list[Entry]) -> None:
        self._object_store, self._context_id, self.entries = remote, context_id, entries

    def open(self, entry: Entry) -> IO[bytes]:
        """See `Snapshot`."""
        return self._object_store.open(_blob(self._context_id, entry.content_id), entry.size)

    def iterate_files(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, IO[bytes]]]:
        """See `Snapshot`; small files are fetched some ahead, since each takes as long as a request does."""
        pending: deque[tuple[Entry, Future[IO[bytes]]]] = deque()
        with ThreadPoolExecutor(MAX_CONCURRENT_REQUESTS) as threads:
            for entry in entries:
                pending.append((entry, threads.submit(self._prefetch, entry)))
                if len(pending) >= MAX_CONCURRENT_REQUESTS:
                    yield from _next(pending)
            while pending:
                yield from _next(pending)

    def _prefetch(self, entry: Entry) -> IO[bytes]:
        if entry.size > _PREFETCH_LIMIT_BYTES:
            return self.open(entry)
        return io.BytesIO(self._object_store.get(_blob(self._context_id, entry.content_id)).body)


def _next(pending: deque[tuple[Entry, Future[IO[bytes]]]]) -> Iterator[tuple[Entry, IO[bytes]]]:
    entry, future = pending.popleft()
    with future.result() as file:
        yield entry, file


def _manifest(context_id: str) -> str:
    return f"{_TOP}/{context_id}/{_MANIFEST}"


def _blob(context_id: str, blob: str) -> str:
    return f"{_TOP}/{context_id}/{_BLOBS}/{blob}"
