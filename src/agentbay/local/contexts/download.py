"""Downloads: stream a context to a session, with archives extracted as the policy says."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack

from agentbay.local.contexts import keys
from agentbay.local.contexts.archives import READ_ERRORS, Archive, BadArchive, open_archive
from agentbay.local.contexts.backend import Snapshot
from agentbay.local.contexts.baseline import Baseline, is_within_any
from agentbay.local.contexts.binding_spec import BindingSpec
from agentbay.local.contexts.entry import Entry
from agentbay.local.contexts.store import ContextStore
from agentbay.local.sandbox.shared.file_protocol import ReceiveTreeReply
from agentbay.local.sandbox.shared.tree_stream import FileContent, TreeStreamWriter


class Download:
    """One download of a binding, or of one path below it.

    Attributes:
        sent_anything: Whether anything was sent; False if the context has nothing at the path.
        errors: Why something did not arrive, by its path below the synchronised one.
    """

    def __init__(self, store: ContextStore, spec: BindingSpec, only: str = "") -> None:
        self._store, self._spec, self._only_path = store, spec, only
        self._key = store.resolve_key(spec.context_id, spec.key)
        self._selection = spec.selection
        self._baseline = Baseline(epoch=store.epoch(spec.context_id))
        self._packed: set[str] = set()
        self._extracted: set[str] = set()
        self.sent_anything = False
        self.errors: dict[str, str] = {}

    def run(self, sink: int) -> None:
        """Write the tree stream to `sink`.

        Raises:
            OSError: The context cannot be read.
            BrokenPipeError: The receiver has stopped reading.
        """
        writer = TreeStreamWriter(sink)
        with self._store.staging() as staging:
            with self._store.open_reader(self._spec.context_id) as contents:
                archives = {keys.relative_to(key, self._key) or "" for key in contents.archive_keys(self._key)}
                # A single path may be a member of an archive, which a snapshot of that path alone would leave out.
                snapshot = contents.snapshot(self._key, staging, "" if archives else self._only_path)
            self._send(writer, snapshot, archives)
        self.errors |= {path: why for path, why in snapshot.unreadable.items() if self._is_wanted(path, archives)}
        writer.end()

    def baseline(self, received: ReceiveTreeReply, before: Baseline) -> Baseline:
        """Return the new baseline.

        Args:
            received: The answer of the receiver, with the signatures of the files that it wrote.
            before: The baseline before the download.
        """
        new, signatures = self._baseline, received.facts
        inside = self._packed | self._extracted
        new.files = {path: signature for path, signature in signatures.items() if path not in inside}
        new.packed = {path: signatures[path] for path in self._packed if path in signatures}
        new.extracted = {path: signatures[path] for path in self._extracted if path in signatures}
        if before.epoch != new.epoch:
            return new
        untouched = {path: signature for path, signature in before.extracted.items() if path not in new.files}
        return Baseline(
            epoch=new.epoch,
            files={**before.files, **new.files},
            packed={**before.packed, **new.packed},
            extracted={**untouched, **new.extracted},
            links={**before.links, **new.links},
            directories={**before.directories, **new.directories},
        )

    def _is_wanted(self, path: str, archives: set[str]) -> bool:
        if path in archives:
            return True
        return path in self._selection and (not self._only_path or is_within_any(path, [self._only_path]))

    def _send(self, writer: TreeStreamWriter, snapshot: Snapshot, archives: set[str]) -> None:
        entries = [entry for entry in snapshot.entries if self._is_wanted(entry.path, archives)]
        single = {entry.path for entry in entries if entry.path not in archives}
        for entry in entries:
            if entry.kind == "dir":
                self._baseline.directories[entry.path] = entry.mode
                self._write_record(writer, entry.path, kind="dir", mode=entry.mode)
        # archives come first, because a single file is newer than a member of the same name
        left = [
            entry
            for entry in entries
            if entry.kind == "file"
            and not self._send_extracted(writer, entry, single, snapshot, from_upload=entry.path in archives)
        ]
        for entry, file in snapshot.iterate_files(left):
            self._send_file(writer, entry.path, entry.mode, entry.mtime_ns, file.read)
        for entry in entries:
            if entry.kind == "link":
                self._baseline.links[entry.path] = entry.target
                self._write_record(writer, entry.path, kind="link", target=entry.target)

    def _write_record(self, writer: TreeStreamWriter, path: str, **content: object) -> None:
        self.sent_anything = True
        writer.write_record(path=path, **content)

    def _send_file(
        self, writer: TreeStreamWriter, path: str, mode: int, mtime_ns: int, read: Callable[[int], bytes]
    ) -> None:
        """Send a file, which the receiver discards if it is incomplete."""
        content = FileContent(read, READ_ERRORS)
        self._write_record(writer, path, kind="file", mode=mode, mtime=mtime_ns)
        writer.write_content(content.read)
        writer.write_unchanged_flag(not content.error)
        if content.error:
            self.errors[path] = content.error

    def _send_extracted(
        self, writer: TreeStreamWriter, entry: Entry, single: set[str], snapshot: Snapshot, *, from_upload: bool
    ) -> bool:
        """Send the members of an archive, and return whether they replace it."""
        policy = self._spec.policy.extract_policy
        wanted = policy is None or policy.extract if from_upload else self._spec.extracts_archives
        if not wanted or not (from_upload or entry.path.lower().endswith(".zip")) or policy is None:
            return False
        with ExitStack() as opened:
            try:
                file = opened.enter_context(snapshot.open(entry))
                archive = open_archive(file, entry.mtime_ns, from_upload=from_upload)
            except (BadArchive, OSError) as error:
                if from_upload:  # the files of a session are in it, and do not arrive
                    self.errors[entry.path] = f"The archive cannot be extracted: {error}"
                return False  # a file like any other
            folder = self._folder(entry.path, policy.extract_current_folder, from_upload=from_upload)
            self._send_members(writer, archive, folder, single, from_upload=from_upload)
        if from_upload and self._only_path and entry.path != self._only_path:
            return True
        if from_upload and not policy.delete_src_file:
            self._extracted.add(entry.path)  # not a file of the session, so it must not be uploaded again
        return policy.delete_src_file

    def _folder(self, path: str, current: bool, *, from_upload: bool) -> str:
        if from_upload:  # mode Archive restores files to where they were
            return ""
        return os.path.dirname(path) if current else path[: -len(".zip")]

    def _send_members(
        self, writer: TreeStreamWriter, archive: Archive, folder: str, single: set[str], *, from_upload: bool
    ) -> None:
        for name, member in archive.members():
            path = f"{folder}/{name}" if folder else name
            if path in single or (from_upload and not self._is_wanted(path, set())):
                continue
            try:
                file = archive.open(member)
            except BadArchive as error:
                self.errors[path] = f"The archive is damaged: {error}"
                continue
            with file:
                mode = (member.external_attr >> 16) & 0o777 or 0o644
                self._send_file(writer, path, mode, archive.mtime_ns(member), file.read)
            (self._packed if from_upload else self._extracted).add(path)
