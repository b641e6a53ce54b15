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
from agentbay.local.contexts.contents import Entry, Owner, Staging, Step
from agentbay.local.contexts.manifest import File, Manifest
from agentbay.local.contexts.names import Names
from agentbay.local.contexts.refusals import bucket_busy, bucket_damaged, no_context, no_mounts
from agentbay.local.contexts.remote import THREADS, Lost, Remote
from agentbay.local.contexts.tree import Tree
from agentbay.local.state_dir import erase

_TOP, _MANIFEST, _BLOBS = "contexts", "manifest", "files"
_CACHED = 64  # manifests that are kept in memory, to be asked for only when they have changed
_ATTEMPTS = 20  # to put a manifest before another runtime does
_DAY = 86400.0  # seconds after which an object that nobody has was left by a runtime that was killed
_SMALL = 1 << 20  # bytes of files that are fetched ahead, as many as there are threads


class Bucket:
    """The contents in a bucket; see `Contents`."""

    def __init__(self, remote: Remote, directory: Path, owner: Owner) -> None:
        """Make a place on this disk for files on their way."""
        self._remote, self._owner = remote, owner
        self.names = Names(remote)
        self._staging = directory / "staging"
        self._staging.mkdir(exist_ok=True)
        self._manifests: OrderedDict[str, tuple[str, Manifest]] = OrderedDict()  # versions, by contexts' ids
        self._prepared: dict[Path, dict[str, File]] = {}  # what staged files have become
        self._swept = 0.0

    def create(self, context_id: str) -> None:
        """See `Contents`."""
        self._remote.put(_manifest(context_id), Manifest().write(), instead_of="")

    def delete(self, context_id: str) -> None:
        """See `Contents`."""
        self._manifests.pop(context_id, None)
        self._remote.delete([_manifest(context_id)])
        self._remote.delete([one.path for one in self._remote.list(f"{_TOP}/{context_id}/")])

    def clear(self, context_id: str) -> None:
        """See `Contents`."""
        self._change(context_id, Manifest.clear)

    def epoch(self, context_id: str) -> int:
        """See `Contents`."""
        return self._load(context_id)[1].epoch

    @contextmanager
    def staging(self) -> Iterator[Staging]:
        """See `Contents`."""
        directory = self._staging / secrets.token_hex(8)
        directory.mkdir()
        try:
            yield Staging(directory, self._owner)
        finally:
            self._prepared.pop(directory, None)
            erase(directory)

    def prepare(self, context_id: str, staging: Staging, steps: Sequence[Step]) -> None:
        """Make objects of staged files."""
        names = [step[2] for step in steps if step[0] == "put"]

        def put(name: str) -> File:
            path = Path(staging.path(name))
            status, blob = path.stat(), secrets.token_hex(16)
            self._remote.put_file(_blob(context_id, blob), path)
            path.unlink()
            return File(blob, status.st_size, status.st_mode & 0o777, status.st_mtime_ns)

        with ThreadPoolExecutor(THREADS) as threads:
            self._prepared[staging.directory] = dict(zip(names, threads.map(put, names), strict=True))

    def commit(self, context_id: str, staging: Staging, steps: Sequence[Step], check: Callable[[], None]) -> None:
        """See `Contents`."""
        blobs = self._prepared[staging.directory]

        def do(manifest: Manifest) -> None:
            check()
            for step in steps:
                manifest.do(step, blobs)

        self._change(context_id, do)

    def view(self, context_id: str) -> _View:
        """See `Contents`."""
        return _View(self._remote, context_id, self._load(context_id)[1])

    def remove(self, context_id: str, key: str) -> bool:
        """See `Contents`."""
        found: list[bool] = []
        self._change(context_id, lambda manifest: found.append(manifest.remove(key)))
        return found[-1]

    def overdue(self) -> Iterable[str]:
        """See `Contents`; objects that nobody has are looked for once a day."""
        if self._swept > time.time() - _DAY:
            return []
        found = sorted({one.path.split("/")[1] for one in self._remote.list(f"{_TOP}/")})
        self._swept = time.time()
        return found

    def tidy(self, context_id: str) -> None:
        """See `Contents`."""
        before = time.time() - _DAY
        old = [one.path for one in self._remote.list(f"{_TOP}/{context_id}/{_BLOBS}/") if one.changed < before]
        try:
            if self._load(context_id)[1].is_due():
                self._change(context_id, Manifest.expire)
            had = {_blob(context_id, blob) for blob in self._load(context_id)[1].blobs()}
        except NotFoundError:  # its deletion was not finished
            had = set()
        self._remote.delete([path for path in old if path not in had])

    def recover(self, known: set[str]) -> None:
        """See `Contents`; what concerns others too is left to `tidy`."""
        for left in self._staging.iterdir():
            erase(left)

    def tree(self, context_id: str) -> Tree:
        """See `Contents`."""
        raise no_mounts()

    def _load(self, context_id: str) -> tuple[str, Manifest]:
        """Return a manifest as it is now, and its version."""
        cached = self._manifests.get(context_id)
        try:
            path = _manifest(context_id)
            found = self._remote.changed(path, cached[0]) if cached else self._remote.get(path)
        except FileNotFoundError:
            raise no_context(context_id) from None
        if found is not None:
            try:
                cached = found.version, Manifest.read(found.body)
            except ValueError as error:
                raise bucket_damaged(context_id, str(error)) from error
        assert cached is not None
        self._keep(context_id, cached)
        return cached

    def _change(self, context_id: str, change: Callable[[Manifest], object]) -> None:
        """Change a manifest as one step, again if somebody else was faster."""
        for _ in range(_ATTEMPTS):
            version, manifest = self._load(context_id)
            self._manifests.pop(context_id)  # until it is put, what is in memory is true of nothing
            change(manifest)
            free = manifest.let_go()
            try:
                version = self._remote.put(_manifest(context_id), manifest.write(), instead_of=version)
            except Lost:
                continue
            self._keep(context_id, (version, manifest))
            self._remote.delete([_blob(context_id, blob) for blob in free])
            return
        raise bucket_busy(context_id)

    def _keep(self, context_id: str, found: tuple[str, Manifest]) -> None:
        self._manifests[context_id] = found
        self._manifests.move_to_end(context_id)
        while len(self._manifests) > _CACHED:
            self._manifests.popitem(last=False)


class _View:
    """See `View`."""

    def __init__(self, remote: Remote, context_id: str, manifest: Manifest) -> None:
        self._remote, self._context_id, self._manifest = remote, context_id, manifest

    def open(self, key: str) -> IO[bytes]:
        """See `View`."""
        file = self._manifest.file(key)
        return self._remote.open(_blob(self._context_id, file.blob), file.size)

    def children(self, key: str) -> list[Entry]:
        """See `View`."""
        return self._manifest.children(key)

    def snapshot(self, key: str, staging: Staging, only: str = "") -> _Listed:
        """See `View`."""
        return _Listed(self._remote, self._context_id, self._manifest.below(key, only))

    def archives(self, top: str) -> list[str]:
        """See `View`."""
        return self._manifest.archives(top)


class _Listed:
    """See `Snapshot`: the objects stay as they are, and for an hour in any case."""

    def __init__(self, remote: Remote, context_id: str, entries: list[Entry]) -> None:
        self._remote, self._context_id, self.entries = remote, context_id, entries

    def open(self, entry: Entry) -> IO[bytes]:
        """See `Snapshot`."""
        return self._remote.open(_blob(self._context_id, entry.held), entry.size)

    def each(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, IO[bytes]]]:
        """See `Snapshot`; small files are fetched some ahead, since each takes as long as a request does."""
        pending: deque[tuple[Entry, Future[IO[bytes]]]] = deque()
        with ThreadPoolExecutor(THREADS) as threads:
            for entry in entries:
                pending.append((entry, threads.submit(self._fetch, entry)))
                if len(pending) >= THREADS:
                    yield from _next(pending)
            while pending:
                yield from _next(pending)

    def _fetch(self, entry: Entry) -> IO[bytes]:
        if entry.size > _SMALL:
            return self.open(entry)
        return io.BytesIO(self._remote.get(_blob(self._context_id, entry.held)).body)


def _next(pending: deque[tuple[Entry, Future[IO[bytes]]]]) -> Iterator[tuple[Entry, IO[bytes]]]:
    entry, future = pending.popleft()
    with future.result() as file:
        yield entry, file


def _manifest(context_id: str) -> str:
    return f"{_TOP}/{context_id}/{_MANIFEST}"


def _blob(context_id: str, blob: str) -> str:
    return f"{_TOP}/{context_id}/{_BLOBS}/{blob}"
