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
from agentbay.local.contexts.backend import CommitStep, StagingDirectory
from agentbay.local.contexts.baseline import Baseline, FileSignature, is_within_any
from agentbay.local.contexts.binding_spec import BindingSpec, archive_name_for
from agentbay.local.contexts.store import ContextStore
from agentbay.local.sandbox.inside.tree_operations import TreeRecord, TreeStreamReader

_CHUNK_BYTES = 1 << 20
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # of the format


@dataclass
class ReceivedTree:
    """What came in a stream: paths relative to the synchronised one."""

    files: dict[str, tuple[str, FileSignature | None]] = field(
        default_factory=dict
    )  # name in the staging directory, facts
    packed: dict[str, FileSignature | None] = field(default_factory=dict)
    kept_members: set[str] = field(default_factory=set)  # in the archive, though not in the session
    unchanged: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)
    directories: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    failure: str = ""

    def has(self, path: str) -> bool:
        """Whether the session still has a path."""
        return any(path in part for part in (self.files, self.packed, self.unchanged, self.links, self.directories))


class Upload:
    """One upload of an item, or of what is at `only` below it."""

    def __init__(self, store: ContextStore, item: BindingSpec, baseline: Baseline, only: str = "") -> None:
        self._store, self._spec, self._only_path = store, item, only
        cleared = store.epoch(item.context_id) != baseline.epoch
        self._baseline = Baseline() if cleared else baseline
        self._key = store.resolve_key(item.context_id, item.key)
        # a single path is asked for to have it there as a file of its own
        self._archive = "" if only else item.archive_name

    def known_files(self) -> dict[str, FileSignature]:
        """The files whose content need not come."""
        single = self._baseline.individual_files()
        if not self._archive:
            return single
        return {path: facts for path, facts in single.items() if self._spec.is_excluded_from_archive(path)}

    def run(self, source: int) -> Baseline:
        """Take the stream from `source` and commit it; return what is then in common.

        Raises:
            OSError: It could not be read or kept; the context is as it was.
        """
        with self._store.staging() as staging:
            taken = self._receive(TreeStreamReader(source), staging)
            if taken.failure:
                raise OSError(taken.failure)
            gone = self._deleted_paths(taken)
            steps = [*self._deletions(taken, gone), *self._archive_steps(taken, gone, staging), *self._puts(taken)]
            if steps:
                self._store.commit(self._spec.context_id, staging, steps)
        if self._only_path and not gone and not taken.has(self._only_path) and not taken.unreadable:
            raise FileNotFoundError(f"The session has no file {keys.join(self._spec.path, self._only_path)}.")
        return self._next_baseline(taken, gone)

    def _receive(self, reader: TreeStreamReader, staging: StagingDirectory) -> ReceivedTree:
        taken = ReceivedTree()
        with self._packing(staging) as archive:
            while (frame := reader.read_record()) is not None:
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
                        taken.unchanged.add(path)
                    case "dir":
                        taken.directories[path] = frame["mode"]
                    case "link":
                        taken.links[path] = frame["target"]
                    case "unreadable":
                        taken.unreadable[path] = frame["why"]
                    case _:
                        taken.failure = str(frame["why"])
            if archive is not None:
                self._copy_kept_members(archive, taken)
        return taken

    def _goes_into_archive(self, path: str) -> bool:
        # the format has no place for names that are no Unicode
        return not self._spec.is_excluded_from_archive(path) and path.encode(errors="replace").decode() == path

    @contextmanager
    def _packing(self, staging: StagingDirectory) -> Iterator[zipfile.ZipFile | None]:
        if not self._archive:
            yield None
            return
        name, fd = staging.create_file()
        self._archive_staged_name = name
        with open(fd, "w+b") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            yield archive

    def _copy_kept_members(self, archive: zipfile.ZipFile, taken: ReceivedTree) -> None:
        """Keep what the archive in the context holds and this session neither has nor has deleted."""
        with self._store.open_reader(self._spec.context_id) as view:
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
                    deleted = self._spec.propagates_deletes and path in self._baseline.packed
                    if member.is_dir() or taken.has(path) or (deleted and not is_within_any(path, taken.unreadable)):
                        continue
                    with old.open(member) as source, archive.open(member, "w") as target:
                        shutil.copyfileobj(source, target, _CHUNK_BYTES)
                    taken.kept_members.add(path)

    def _deleted_paths(self, taken: ReceivedTree) -> list[str]:
        """The paths that the context has and the session has deleted, the deepest first."""
        before = set(self._baseline.paths()) | set(self._baseline.extracted)
        return sorted(
            (
                path
                for path in before
                if not taken.has(path)
                and (not self._only_path or is_within_any(path, [self._only_path]))
                and not is_within_any(path, taken.unreadable)
            ),
            reverse=True,
        )

    def _deletions(self, taken: ReceivedTree, gone: list[str]) -> Iterator[CommitStep]:
        if self._spec.propagates_deletes:
            yield from (["delete", self._key_of(path)] for path in gone if path not in self._baseline.extracted)
        if self._archive:
            # what is now in the archive is no longer a file by itself
            yield from (["delete", self._key_of(path)] for path in taken.packed if path in self._baseline.files)
        elif self._baseline.packed and not self._only_path:
            # and the other way round: all that the archive held has come one by one
            key = self._key_of(archive_name_for(self._spec.key))
            with self._store.open_reader(self._spec.context_id) as view:
                kept = view.archive_keys(self._key)
            if key in kept:
                yield ["delete", key]

    def _archive_steps(self, taken: ReceivedTree, gone: list[str], staging: StagingDirectory) -> Iterator[CommitStep]:
        if not self._archive:
            return
        key = self._key_of(self._archive)
        if taken.packed or taken.kept_members:
            yield ["put", key, self._archive_staged_name, self._spec.expiry_time("", self._store.now), True]
        elif any(path in self._baseline.packed for path in gone) and self._spec.propagates_deletes:
            yield ["delete", key]

    def _puts(self, taken: ReceivedTree) -> Iterator[CommitStep]:
        now = self._store.now
        for path, mode in taken.directories.items():
            if self._baseline.directories.get(path) != mode:
                yield ["dir", self._key_of(path), mode]
        for path, (name, _) in taken.files.items():
            yield ["put", self._key_of(path), name, self._spec.expiry_time(path, now), False]
        for path, target in taken.links.items():
            if self._baseline.links.get(path) != target:
                yield ["link", self._key_of(path), target]

    def _key_of(self, path: str) -> str:
        return keys.join(self._key, path)

    def _next_baseline(self, taken: ReceivedTree, gone: list[str]) -> Baseline:
        old = self._baseline
        new = Baseline(
            epoch=self._store.epoch(self._spec.context_id),
            files={**old.files, **{path: facts for path, (_, facts) in taken.files.items() if facts}},
            packed=dict(old.packed) if self._only_path else self._packed_now(taken),
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
        new.remove_paths(gone)
        return new

    def _packed_now(self, taken: ReceivedTree) -> dict[str, FileSignature]:
        kept = {path: self._baseline.packed[path] for path in taken.kept_members if path in self._baseline.packed}
        return {**kept, **{path: facts or [] for path, facts in taken.packed.items()}}


def _stage(staging: StagingDirectory, frame: TreeRecord, reader: TreeStreamReader) -> tuple[str, FileSignature | None]:
    name, fd = staging.create_file(frame["mode"])
    try:
        while piece := reader.read_chunk():
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
        os.utime(fd, ns=(frame["mtime"], frame["mtime"]))
    finally:
        os.close(fd)
    return name, frame["facts"] if reader.read_unchanged_flag() else None


def _pack(archive: zipfile.ZipFile, frame: TreeRecord, reader: TreeStreamReader) -> FileSignature | None:
    member = zipfile.ZipInfo(frame["path"], _date(frame["mtime"]))
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = (stat.S_IFREG | frame["mode"] & 0o777) << 16
    with archive.open(member, "w", force_zip64=frame["facts"][0] > 1 << 30) as target:
        while piece := reader.read_chunk():
            target.write(piece)
    return frame["facts"] if reader.read_unchanged_flag() else None


def _skip(reader: TreeStreamReader) -> None:
    while reader.read_chunk():
        pass
    reader.read_unchanged_flag()


def _date(mtime_ns: int) -> tuple[int, int, int, int, int, int]:
    moment = time.gmtime(mtime_ns // 1_000_000_000)[:6]
    return moment if _EARLIEST <= moment < (2108, 1, 1, 0, 0, 0) else _EARLIEST
