"""The output of background commands, which the dashboard reads from their files."""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence

from agentbay.errors import AgentBayError
from agentbay.local.sandbox.service.manager import FileOperationFailed, RunningProcess, SandboxError
from agentbay.local.sandbox.shared.file_protocol import EntryStatus, ListDirectory, ReadFile
from agentbay.local.sessions.history import HistoryEntry
from agentbay.local.sessions.lifecycle import SessionState
from agentbay.local.sessions.session import Session

_REFRESH_SECONDS = 1.0  # least time between two refreshes
_MIN_PAUSE_FACTOR = 10  # a pause is this many times as long as the refresh before it
_MAX_COMMANDS = 8  # commands that are refreshed: those started last
_TAIL_BYTES = 16 << 10

Files = dict[str, EntryStatus]  # by name


class BackgroundCommands:
    """Keeps the history's entries of one session's background commands up to date."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sizes: dict[int, tuple[int, int]] = {}  # bytes of stdout and stderr, by the number of the entry
        self._next_refresh = 0.0  # monotonic time

    async def refresh(self, processes: Sequence[RunningProcess]) -> None:
        """Read output and exit codes of unfinished commands, but not too often.

        Args:
            processes: The processes of the session, listed just before.
        """
        entries = self._session.history.unfinished_background()[-_MAX_COMMANDS:]
        began = time.monotonic()
        if not entries or began < self._next_refresh or self._session.lifecycle.state is not SessionState.RUNNING:
            return
        try:
            for entry in entries:
                await self._refresh_entry(entry, processes)
        except (AgentBayError, SandboxError):  # the session was paused or ended at this very moment
            return
        finally:
            now = time.monotonic()
            self._next_refresh = now + max(_REFRESH_SECONDS, _MIN_PAUSE_FACTOR * (now - began))

    async def _refresh_entry(self, entry: HistoryEntry, processes: Sequence[RunningProcess]) -> None:
        try:
            with self._session.using(counts_as_activity=False) as sandbox:
                reply, _ = await sandbox.run_file_operation(ListDirectory(entry.output_directory))
            files = {file["name"]: file for file in reply.entries}
            if not {"stdout", "stderr"} <= files.keys():  # it is being removed
                return
            await self._read_output(entry, files)
            if "exit" in files:
                code = await self._tail(entry, files["exit"])
                self._finish(entry, files["exit"]["mtime"], code=int(code))
            elif not any(entry.output_directory in process.command for process in processes):
                self._finish(entry, time.time(), failed=True, note="it was killed from outside, and left no exit code")
        except ValueError:
            self._finish(entry, time.time(), failed=True, note="it left no exit code")
        except FileOperationFailed as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):  # after other errors, the next refresh tries again
                self._finish(entry, time.time(), note="its output was removed")

    def _finish(
        self, entry: HistoryEntry, ended_at: float, *, code: int | None = None, failed: bool = False, note: str = ""
    ) -> None:
        entry.set_result(exit_code=code, failed=failed, note=note)
        self._session.history.mark_ended(entry, ended_at)

    async def _read_output(self, entry: HistoryEntry, files: Files) -> None:
        out, err = files["stdout"], files["stderr"]
        sizes = out["size"], err["size"]
        if self._sizes.get(entry.number) != sizes:
            if entry.set_output(await self._tail(entry, out), await self._tail(entry, err)):
                self._session.history.mark_changed(entry)
            self._sizes[entry.number] = sizes

    async def _tail(self, entry: HistoryEntry, file: EntryStatus) -> bytes:
        path, offset = f"{entry.output_directory}/{file['name']}", max(0, file["size"] - _TAIL_BYTES)
        with self._session.using(counts_as_activity=False) as sandbox:
            _, data = await sandbox.run_file_operation(ReadFile(path, offset, _TAIL_BYTES))
        return bytes(data)
