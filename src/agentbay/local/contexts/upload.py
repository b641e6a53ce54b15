"""Uploads: receive the tree stream of a session, and commit it to a context."""

from __future__ import annotations

import os
import shutil
import stat
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

from agentbay._lazy_attrs import define, field
from agentbay.local.contexts import keys
from agentbay.local.contexts.archives import MAX_MEMBERS, READ_ERRORS, BadArchive, open_archive
from agentbay.local.contexts.backend import CommitStep, StagingDirectory
from agentbay.local.contexts.baseline import Baseline, FileSignature, is_within_any
from agentbay.local.contexts.binding_spec import BindingSpec, archive_name_for
from agentbay.local.contexts.store import ContextStore
from agentbay.local.sandbox.shared.fd_io import closing_fd
from agentbay.local.sandbox.shared.tree_stream import MalformedStream, TreeRecord, TreeStreamReader, check_relative_path

_CHUNK_BYTES = 1 << 20
_MAX_TARGET_BYTES = 4095  # of a link, as Linux has it
_EARLIEST_ZIP_DATE, _LATEST_ZIP_DATE = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)


@define(slots=False)
class ReceivedTree:
    """The contents of a stream, by path below the synchronised one.

    A file that was written to while it was read has no signature.

    Attributes:
        files: Names in the staging directory, and signatures.
        packed: Signatures of the files in the new archive.
        kept_members: Members of the old archive that the session does not have.
        unchanged: Files that are as in the baseline.
        unreadable: Why a path could not be read.
    """

    files: dict[str, tuple[str, FileSignature | None]] = field(factory=dict)
    packed: dict[str, FileSignature | None] = field(factory=dict)
    kept_members: set[str] = field(factory=set)
    unchanged: set[str] = field(factory=set)
    links: dict[str, str] = field(factory=dict)
    directories: dict[str, int] = field(factory=dict)
    unreadable: dict[str, str] = field(factory=dict)
    failure: str = ""

    def has(self, path: str) -> bool:
        """Whether the session has a path."""
        return any(path in part for part in (self.files, self.packed, self.unchanged, self.links, self.directories))


class Upload:
    """One upload of a binding, or of one path below it.

    Attributes:
        unreadable: Why a path could not be read, and so is not as new in the context as in the session.
    """

    def __init__(self, store: ContextStore, spec: BindingSpec, baseline: Baseline, only: str = "") -> None:
        self._store, self._spec, self._only_path = store, spec, only
        cleared = store.epoch(spec.context_id) != baseline.epoch
        self._baseline = Baseline() if cleared else baseline
        self._key = store.resolve_key(spec.context_id, spec.key)
        # a client that uploads a single path wants to find it as a file, not in the archive
        self._archive = "" if only else spec.archive_name
        self.unreadable: dict[str, str] = {}

    def known_files(self) -> dict[str, FileSignature]:
        """Return the signatures of the files whose content is not needed again."""
        single = self._baseline.individual_files()
        if not self._archive:
            return single
        return {path: signature for path, signature in single.items() if self._spec.is_excluded_from_archive(path)}

    def run(self, source: int) -> Baseline:
        """Receive the stream from `source`, commit it, and return the new baseline.

        Raises:
            OSError: The stream cannot be read or stored. The context is unchanged.
        """
        with self._store.staging() as staging:
            try:
                received = self._receive(TreeStreamReader(source), staging)
            except (LookupError, OverflowError, RecursionError, TypeError, ValueError) as error:
                # code of the session can write to the pipe of the program that sends
                raise MalformedStream(f"The session has sent a malformed stream: {error}") from error
            if received.failure:
                raise OSError(received.failure)
            self.unreadable = received.unreadable
            deleted = self._deleted_paths(received)
            steps = [
                *self._deletions(received, deleted),
                *self._archive_steps(received, deleted),
                *self._puts(received),
            ]
            if steps:
                self._store.commit(self._spec.context_id, staging, steps)
        if self._only_path and not deleted and not received.has(self._only_path) and not received.unreadable:
            raise FileNotFoundError(f"The session has no file {keys.join(self._spec.path, self._only_path)}.")
        return self._next_baseline(received, deleted)

    def _receive(self, reader: TreeStreamReader, staging: StagingDirectory) -> ReceivedTree:
        received = ReceivedTree()
        with self._packing(staging) as archive:
            while (record := reader.read_record()) is not None:
                if record["kind"] == "failed":
                    raise OSError(str(record["why"]))
                path = check_relative_path(record["path"])
                if record["kind"] != "unreadable" and not keys.fits(key := self._key_of(path), keys.split(key)):
                    # One that no context can hold must not keep the others from arriving.
                    received.unreadable[path] = "The path is too long for a context"
                    if record["kind"] == "file":
                        _skip(reader)
                    continue
                match record["kind"]:
                    case "file" if archive is not None and self._goes_into_archive(path):
                        if path != self._archive:
                            received.packed[path] = _pack(archive, staging, record, reader)
                        else:
                            _skip(reader)
                    case "file":
                        received.files[path] = _stage(staging, record, reader)
                    case "same":
                        received.unchanged.add(path)
                    case "dir":
                        received.directories[path] = record["mode"] & 0o777
                    case "link":
                        received.links[path] = _check_target(record["target"])
                    case "unreadable":
                        received.unreadable[path] = str(record["why"])
                        received.files.pop(path, None)
                        if path in received.packed:  # a zip file cannot lose a member again
                            received.failure = f"{path}: {record['why']}"
                    case unknown:
                        raise ValueError(unknown)
            if archive is not None:
                self._copy_kept_members(archive, received)
        return received

    def _goes_into_archive(self, path: str) -> bool:
        # zip has no encoding for names that are not Unicode
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

    def _copy_kept_members(self, archive: zipfile.ZipFile, received: ReceivedTree) -> None:
        """Copy members of the old archive that this session never had or deleted."""
        with self._store.open_reader(self._spec.context_id) as contents:
            try:
                old_archive = contents.open(keys.join(self._key, self._archive))
            except FileNotFoundError:
                # The context has no archive yet.
                return
        with old_archive as file:
            try:
                old = open_archive(file, 0, from_upload=True)
                for path, member in old.members():
                    if not received.has(path) and not self._was_deleted(path, received):
                        with old.open(member) as source, archive.open(member, "w") as target:
                            shutil.copyfileobj(source, target, _CHUNK_BYTES)
                        received.kept_members.add(path)
            except (BadArchive, *READ_ERRORS) as error:
                # replacing it would destroy what other sessions have put into it
                raise OSError(f"The archive {self._archive} in the context cannot be read: {error}") from error
        if len(received.packed) + len(received.kept_members) > MAX_MEMBERS:
            raise OSError(f"An archive holds {MAX_MEMBERS} files at most; use upload mode File.")

    def _was_deleted(self, member: str, received: ReceivedTree) -> bool:
        known = self._spec.propagates_deletes and member in self._baseline.packed
        return known and not is_within_any(member, received.unreadable)

    def _deleted_paths(self, received: ReceivedTree) -> list[str]:
        """Return the paths that the session has deleted, the deepest first."""
        before = set(self._baseline.paths()) | set(self._baseline.extracted)
        return sorted(
            (
                path
                for path in before
                if not received.has(path)
                and (not self._only_path or is_within_any(path, [self._only_path]))
                and not is_within_any(path, received.unreadable)
            ),
            reverse=True,
        )

    def _deletions(self, received: ReceivedTree, deleted: list[str]) -> Iterator[CommitStep]:
        if self._spec.propagates_deletes:
            yield from (["delete", self._key_of(path)] for path in deleted if path not in self._baseline.extracted)
        # a file that the session has turned into a directory is known to it, so it may go
        yield from (["delete", self._key_of(path)] for path in received.directories if path in self._baseline.files)
        if self._archive:
            # files that are in the archive now are no single files any more
            yield from (["delete", self._key_of(path)] for path in received.packed if path in self._baseline.files)
        elif self._baseline.packed and not self._only_path:
            # the other way round: all members of the archive have come as single files
            key = self._key_of(archive_name_for(self._spec.key))
            with self._store.open_reader(self._spec.context_id) as contents:
                archive_keys = contents.archive_keys(self._key)
            if key in archive_keys:
                yield ["delete", key]

    def _archive_steps(self, received: ReceivedTree, deleted: list[str]) -> Iterator[CommitStep]:
        if not self._archive:
            return
        key = self._key_of(self._archive)
        if received.packed or received.kept_members:
            yield ["put", key, self._archive_staged_name, self._spec.expiry_time("", self._store.now), True]
        elif any(path in self._baseline.packed for path in deleted) and self._spec.propagates_deletes:
            yield ["delete", key]

    def _puts(self, received: ReceivedTree) -> Iterator[CommitStep]:
        now = self._store.now
        for path, mode in received.directories.items():
            if self._baseline.directories.get(path) != mode:
                yield ["dir", self._key_of(path), mode]
        for path, (name, _) in received.files.items():
            yield ["put", self._key_of(path), name, self._spec.expiry_time(path, now), False]
        for path, target in received.links.items():
            if self._baseline.links.get(path) != target:
                yield ["link", self._key_of(path), target]

    def _key_of(self, path: str) -> str:
        return keys.join(self._key, path)

    def _next_baseline(self, received: ReceivedTree, deleted: list[str]) -> Baseline:
        old = self._baseline
        new = Baseline(
            epoch=self._store.epoch(self._spec.context_id),
            files={**old.files, **{path: signature for path, (_, signature) in received.files.items() if signature}},
            packed=dict(old.packed) if self._only_path else self._packed_now(received),
            extracted=dict(old.extracted),
            links={**old.links, **received.links},
            directories={**old.directories, **received.directories},
        )
        for path, (_, signature) in received.files.items():
            new.extracted.pop(path, None)
            if not signature:  # written to while it was read, so it must be uploaded again
                new.files[path] = []
        for path in received.packed:
            new.files.pop(path, None)
        new.remove_paths(deleted)
        return new

    def _packed_now(self, received: ReceivedTree) -> dict[str, FileSignature]:
        packed = {path: self._baseline.packed[path] for path in received.kept_members if path in self._baseline.packed}
        return {**packed, **{path: signature or [] for path, signature in received.packed.items()}}


def _stage(staging: StagingDirectory, record: TreeRecord, reader: TreeStreamReader) -> tuple[str, FileSignature | None]:
    name, fd = staging.create_file(record["mode"])
    with closing_fd(fd):
        for piece in _content(staging, record, reader):
            if isinstance(piece, int):
                staging.write_hole(fd, piece)
            else:
                staging.write(fd, piece)
        staging.finish(fd)
        os.utime(fd, ns=(record["mtime"], record["mtime"]))
    return name, record["facts"] if reader.read_unchanged_flag() else None


def _pack(
    archive: zipfile.ZipFile, staging: StagingDirectory, record: TreeRecord, reader: TreeStreamReader
) -> FileSignature | None:
    member = zipfile.ZipInfo(record["path"], _zip_date(record["mtime"]))
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = (stat.S_IFREG | record["mode"] & 0o777) << 16
    # The header comes before the content, and without ZIP64 it allows 2 GiB. A file may grow while it is read, so the
    # threshold leaves room.
    with archive.open(member, "w", force_zip64=record["facts"][0] > 1 << 30) as target:
        for piece in _content(staging, record, reader):
            for chunk in _zeros(piece) if isinstance(piece, int) else [piece]:
                target.write(chunk)
    return record["facts"] if reader.read_unchanged_flag() else None


def _content(staging: StagingDirectory, record: TreeRecord, reader: TreeStreamReader) -> Iterator[bytes | int]:
    """Yield the content of a file, and the bytes of each hole."""
    left = record["facts"][0]
    staging.check_room(left)
    while piece := reader.read_piece():
        left -= piece if isinstance(piece, int) else len(piece)
        if left < 0:
            raise ValueError("a file is longer than announced")
        yield piece


def _zeros(size: int) -> Iterator[bytes]:
    block = bytes(_CHUNK_BYTES)
    while size > 0:
        yield block[:size]
        size -= _CHUNK_BYTES


def _check_target(target: str) -> str:
    if not target or "\0" in target or len(keys.encode(target)) > _MAX_TARGET_BYTES:
        raise ValueError("a link leads nowhere")
    return target


def _skip(reader: TreeStreamReader) -> None:
    while reader.read_piece():
        pass
    reader.read_unchanged_flag()


def _zip_date(mtime_ns: int) -> tuple[int, int, int, int, int, int]:
    date = time.gmtime(mtime_ns // 1_000_000_000)[:6]
    return date if _EARLIEST_ZIP_DATE <= date <= _LATEST_ZIP_DATE else _EARLIEST_ZIP_DATE
