"""Downloads: stream a context to a session, with archives extracted as the policy says."""

from __future__ import annotations

import calendar
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

from agentbay.local.contexts import keys
from agentbay.local.contexts.backend import Snapshot
from agentbay.local.contexts.baseline import Baseline, is_within_any
from agentbay.local.contexts.binding_spec import BindingSpec
from agentbay.local.contexts.entry import Entry
from agentbay.local.contexts.store import ContextStore
from agentbay.local.sandbox.shared.file_protocol import ReceiveTreeReply
from agentbay.local.sandbox.shared.tree_stream import TreeStreamWriter

_Members = list[tuple[str, zipfile.ZipInfo]]  # path below the synchronised one, member


class Download:
    """One download of a binding, or of one path below it."""

    def __init__(self, store: ContextStore, spec: BindingSpec, only: str = "") -> None:
        self._store, self._spec, self._only_path = store, spec, only
        self._key = store.resolve_key(spec.context_id, spec.key)
        self._selection = spec.selection
        self._baseline = Baseline(epoch=store.epoch(spec.context_id))
        self._packed: set[str] = set()
        self._extracted: set[str] = set()
        self.sent_anything = False

    def run(self, sink: int) -> None:
        """Write the tree stream to `sink`.

        Raises:
            OSError: The context cannot be read.
            BrokenPipeError: The receiver has stopped reading.
        """
        writer = TreeStreamWriter(sink)
        with self._store.staging() as staging:
            with self._store.open_reader(self._spec.context_id) as view:
                archives = {keys.relative_to(key, self._key) for key in view.archive_keys(self._key)}
                snapshot = view.snapshot(self._key, staging, "" if archives else self._only_path)
            self._send(writer, snapshot, archives)
        writer.end()

    def baseline(self, received: ReceiveTreeReply, before: Baseline) -> Baseline:
        """Return the new baseline.

        Args:
            received: The answer of the receiver, with the signatures of the files that it wrote.
            before: The baseline before the download.
        """
        new, facts = self._baseline, received.facts
        new.files = {path: mine for path, mine in facts.items() if path not in self._packed | self._extracted}
        new.packed = {path: facts[path] for path in self._packed if path in facts}
        new.extracted = {path: facts[path] for path in self._extracted if path in facts}
        if before.epoch != new.epoch:
            return new
        untouched = {path: mine for path, mine in before.extracted.items() if path not in new.files}
        return Baseline(
            epoch=new.epoch,
            files={**before.files, **new.files},
            packed={**before.packed, **new.packed},
            extracted={**untouched, **new.extracted},
            links={**before.links, **new.links},
            directories={**before.directories, **new.directories},
        )

    def _is_wanted(self, path: str, archives: set[str | None]) -> bool:
        if path in archives:
            return True
        return path in self._selection and (not self._only_path or is_within_any(path, [self._only_path]))

    def _send(self, writer: TreeStreamWriter, snapshot: Snapshot, archives: set[str | None]) -> None:
        entries = [entry for entry in snapshot.entries if self._is_wanted(entry.path, archives)]
        single = {entry.path for entry in entries if entry.path not in archives}
        for entry in entries:
            if entry.kind == "dir":
                self._baseline.directories[entry.path] = entry.mode
                self._frame(writer, entry.path, kind="dir", mode=entry.mode)
        files = [entry for entry in entries if entry.kind == "file"]
        # first what archives hold, as a file that is there by itself is newer
        left = [
            entry for entry in files if not self._send_unpacked(writer, entry, single, snapshot, entry.path in archives)
        ]
        for entry, file in snapshot.iterate_files(left):
            self._send_file(writer, entry, file)
        for entry in entries:
            if entry.kind == "link":
                self._baseline.links[entry.path] = entry.target
                self._frame(writer, entry.path, kind="link", target=entry.target)

    def _frame(self, writer: TreeStreamWriter, path: str, **content: object) -> None:
        self.sent_anything = True
        writer.write_record(path=path, **content)

    def _send_file(self, writer: TreeStreamWriter, entry: Entry, file: IO[bytes]) -> None:
        self._frame(writer, entry.path, kind="file", mode=entry.mode, mtime=entry.mtime_ns)
        writer.write_content(file.read)
        writer.write_unchanged_flag(True)

    def _send_unpacked(
        self, writer: TreeStreamWriter, entry: Entry, single: set[str], snapshot: Snapshot, own: bool
    ) -> bool:
        """Send what an archive holds; True if it need not be sent itself."""
        policy = self._spec.policy.extract_policy
        wanted = policy is None or policy.extract if own else self._spec.extracts_archives
        if not wanted or not (own or entry.path.lower().endswith(".zip")) or policy is None:
            return False
        with snapshot.open(entry) as file:
            try:
                archive = zipfile.ZipFile(file)
                members = list(_safe_members(archive, self._folder(entry.path, policy.extract_current_folder, own=own)))
            except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
                return False  # only called so: it is a file like any other
            with archive:
                self._send_members(writer, archive, members, single, own=own)
        if own and self._only_path and entry.path != self._only_path:
            return True
        if own and not policy.delete_src_file:
            self._extracted.add(entry.path)  # it is not the session's own, and must not go up again
        return policy.delete_src_file

    def _folder(self, path: str, current: bool, *, own: bool) -> str:
        if own:  # mode Archive must give back what it took, where it was
            return ""
        return os.path.dirname(path) if current else path[: -len(".zip")]

    def _send_members(
        self, writer: TreeStreamWriter, archive: zipfile.ZipFile, members: _Members, single: set[str], *, own: bool
    ) -> None:
        for path, member in members:
            if path in single or (own and not self._is_wanted(path, set())):
                continue
            mode = member.external_attr >> 16
            with archive.open(member) as file:
                self._frame(writer, path, kind="file", mode=mode & 0o777 or 0o644, mtime=_mtime(member))
                writer.write_content(_CheckedMember(file).read)
                writer.write_unchanged_flag(True)
            (self._packed if own else self._extracted).add(path)


class _CheckedMember:
    """A member of an archive; damage in it is an error of reading, not of programming."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        try:
            data: bytes = self._file.read(size)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise OSError(f"The archive is damaged: {error}") from error
        return data


def _safe_members(archive: zipfile.ZipFile, folder: str) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """Yield the files of an archive that stay in `folder`; links do not come."""
    for member in archive.infolist():
        if member.flag_bits & 1:
            raise NotImplementedError("encrypted")
        parts = member.filename.split("/")
        leaves = member.filename.startswith("/") or any(part in ("", ".", "..") for part in parts)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if not member.is_dir() and not leaves and "\\" not in member.filename and kind in (0, stat.S_IFREG):
            yield (f"{folder}/{member.filename}" if folder else member.filename), member


def _mtime(member: zipfile.ZipInfo) -> int:
    return calendar.timegm((*member.date_time, 0, 0, 0)) * 1_000_000_000
