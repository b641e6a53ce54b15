"""From a session to a context: take a stream in, and turn it into a commit."""

from __future__ import annotations

import os
import shutil
import stat
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from agentbay.local.contexts import keys
from agentbay.local.contexts.baseline import Baseline, Facts, within
from agentbay.local.contexts.contents import Staging, Step
from agentbay.local.contexts.policy import Item, archive_name
from agentbay.local.contexts.store import Store
from agentbay.local.sandbox.trees import Frame, Reader

_PIECE = 1 << 20
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # of the format


@dataclass
class Taken:
    """What came in a stream: paths relative to the synchronised one."""

    files: dict[str, tuple[str, Facts | None]] = field(default_factory=dict)  # name in the staging directory, facts
    packed: dict[str, Facts | None] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)  # in the archive, though not in the session
    same: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)
    directories: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    failure: str = ""

    def has(self, path: str) -> bool:
        """Whether the session still has a path."""
        return any(path in part for part in (self.files, self.packed, self.same, self.links, self.directories))


class Upload:
    """One upload of an item, or of what is at `only` below it."""

    def __init__(self, store: Store, item: Item, baseline: Baseline, only: str = "") -> None:
        self._store, self._item, self._only = store, item, only
        cleared = store.epoch(item.context_id) != baseline.epoch
        self._baseline = Baseline() if cleared else baseline
        self._key = store.locate(item.context_id, item.key)
        # a single path is asked for to have it there as a file of its own
        self._archive = "" if only else item.archive

    def known(self) -> dict[str, Facts]:
        """The files whose content need not come."""
        single = self._baseline.single()
        if not self._archive:
            return single
        return {path: facts for path, facts in single.items() if self._item.kept_single(path)}

    def run(self, source: int) -> Baseline:
        """Take the stream from `source` and commit it; return what is then in common.

        Raises:
            OSError: It could not be read or kept; the context is as it was.
        """
        with self._store.staging() as staging:
            taken = self._take(Reader(source), staging)
            if taken.failure:
                raise OSError(taken.failure)
            gone = self._gone(taken)
            steps = [*self._deletions(taken, gone), *self._archive_steps(taken, gone, staging), *self._puts(taken)]
            if steps:
                self._store.commit(self._item.context_id, staging, steps)
        if self._only and not gone and not taken.has(self._only) and not taken.unreadable:
            raise FileNotFoundError(f"The session has no file {keys.join(self._item.path, self._only)}.")
        return self._next_baseline(taken, gone)

    def _take(self, reader: Reader, staging: Staging) -> Taken:
        taken = Taken()
        with self._packing(staging) as archive:
            while (frame := reader.frame()) is not None:
                path = frame.get("path", "")
                match frame["kind"]:
                    case "file" if archive is not None and self._goes_into_archive(path):
                        if path != self._archive:
                            taken.packed[path] = _pack(archive, frame, reader)
                        else:
                            _skip(reader)
                    case "file":
                        taken.files[path] = _stage(staging, frame, reader)
                    case "same":
                        taken.same.add(path)
                    case "dir":
                        taken.directories[path] = frame["mode"]
                    case "link":
                        taken.links[path] = frame["target"]
                    case "unreadable":
                        taken.unreadable[path] = frame["why"]
                    case _:
                        taken.failure = str(frame["why"])
            if archive is not None:
                self._keep_members(archive, taken)
        return taken

    def _goes_into_archive(self, path: str) -> bool:
        # the format has no place for names that are no Unicode
        return not self._item.kept_single(path) and path.encode(errors="replace").decode() == path

    @contextmanager
    def _packing(self, staging: Staging) -> Iterator[zipfile.ZipFile | None]:
        if not self._archive:
            yield None
            return
        name, fd = staging.create()
        self._packed_as = name
        with open(fd, "w+b") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            yield archive

    def _keep_members(self, archive: zipfile.ZipFile, taken: Taken) -> None:
        """Keep what the archive in the context holds and this session neither has nor has deleted."""
        with self._store.reading(self._item.context_id) as view:
            try:
                kept = view.open(keys.join(self._key, self._archive))
            except FileNotFoundError:
                return
        with kept as file:
            if not zipfile.is_zipfile(file):
                return
            with zipfile.ZipFile(file) as old:
                for member in old.infolist():
                    path = member.filename.rstrip("/")
                    deleted = self._item.deletes and path in self._baseline.packed
                    if member.is_dir() or taken.has(path) or (deleted and not within(path, taken.unreadable)):
                        continue
                    with old.open(member) as source, archive.open(member, "w") as target:
                        shutil.copyfileobj(source, target, _PIECE)
                    taken.kept.add(path)

    def _gone(self, taken: Taken) -> list[str]:
        """The paths that the context has and the session has deleted, the deepest first."""
        before = set(self._baseline.paths()) | set(self._baseline.extracted)
        return sorted(
            (
                path
                for path in before
                if not taken.has(path)
                and (not self._only or within(path, [self._only]))
                and not within(path, taken.unreadable)
            ),
            reverse=True,
        )

    def _deletions(self, taken: Taken, gone: list[str]) -> Iterator[Step]:
        if self._item.deletes:
            yield from (["delete", self._where(path)] for path in gone if path not in self._baseline.extracted)
        if self._archive:
            # what is now in the archive is no longer a file by itself
            yield from (["delete", self._where(path)] for path in taken.packed if path in self._baseline.files)
        elif self._baseline.packed and not self._only:
            # and the other way round: all that the archive held has come one by one
            key = self._where(archive_name(self._item.key))
            with self._store.reading(self._item.context_id) as view:
                kept = view.archives(self._key)
            if key in kept:
                yield ["delete", key]

    def _archive_steps(self, taken: Taken, gone: list[str], staging: Staging) -> Iterator[Step]:
        if not self._archive:
            return
        key = self._where(self._archive)
        if taken.packed or taken.kept:
            yield ["put", key, self._packed_as, self._item.expires("", self._store.now), True]
        elif any(path in self._baseline.packed for path in gone) and self._item.deletes:
            yield ["delete", key]

    def _puts(self, taken: Taken) -> Iterator[Step]:
        now = self._store.now
        for path, mode in taken.directories.items():
            if self._baseline.directories.get(path) != mode:
                yield ["dir", self._where(path), mode]
        for path, (name, _) in taken.files.items():
            yield ["put", self._where(path), name, self._item.expires(path, now), False]
        for path, target in taken.links.items():
            if self._baseline.links.get(path) != target:
                yield ["link", self._where(path), target]

    def _where(self, path: str) -> str:
        return keys.join(self._key, path)

    def _next_baseline(self, taken: Taken, gone: list[str]) -> Baseline:
        old = self._baseline
        new = Baseline(
            epoch=self._store.epoch(self._item.context_id),
            files={**old.files, **{path: facts for path, (_, facts) in taken.files.items() if facts}},
            packed=dict(old.packed) if self._only else self._packed_now(taken),
            extracted=dict(old.extracted),
            links={**old.links, **taken.links},
            directories={**old.directories, **taken.directories},
        )
        for path, (_, facts) in taken.files.items():
            new.extracted.pop(path, None)
            if not facts:  # written to while it was read: it must go up again, but the context has it
                new.files[path] = []
        for path in taken.packed:
            new.files.pop(path, None)
        new.forget(gone)
        return new

    def _packed_now(self, taken: Taken) -> dict[str, Facts]:
        kept = {path: self._baseline.packed[path] for path in taken.kept if path in self._baseline.packed}
        return {**kept, **{path: facts or [] for path, facts in taken.packed.items()}}


def _stage(staging: Staging, frame: Frame, reader: Reader) -> tuple[str, Facts | None]:
    name, fd = staging.create(frame["mode"])
    try:
        while piece := reader.piece():
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
        os.utime(fd, ns=(frame["mtime"], frame["mtime"]))
    finally:
        os.close(fd)
    return name, frame["facts"] if reader.stood_still() else None


def _pack(archive: zipfile.ZipFile, frame: Frame, reader: Reader) -> Facts | None:
    member = zipfile.ZipInfo(frame["path"], _date(frame["mtime"]))
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = (stat.S_IFREG | frame["mode"] & 0o777) << 16
    with archive.open(member, "w", force_zip64=frame["facts"][0] > 1 << 30) as target:
        while piece := reader.piece():
            target.write(piece)
    return frame["facts"] if reader.stood_still() else None


def _skip(reader: Reader) -> None:
    while reader.piece():
        pass
    reader.stood_still()


def _date(mtime_ns: int) -> tuple[int, int, int, int, int, int]:
    moment = time.gmtime(mtime_ns // 1_000_000_000)[:6]
    return moment if _EARLIEST <= moment < (2108, 1, 1, 0, 0, 0) else _EARLIEST
