"""The background processes of a session."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from agentbay.local.sandbox.service.disk_quota import OUTPUT_DIRECTORY
from agentbay.local.sandbox.service.manager import BackgroundProcess, Sandbox, SandboxGone
from agentbay.local.sessions.history import CommandHistory

_PROCESS_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
_KILL_WAIT_SECONDS = 10.0


class ProcessRefused(Exception):
    """A background process cannot be used in this way.

    The message is for people.
    """


class BackgroundProcesses:
    """The background processes of one session, by id.

    Those that have ended stay until they are removed.
    """

    def __init__(self, directory: Path, history: CommandHistory) -> None:
        self._directory, self._history = directory / OUTPUT_DIRECTORY, history
        self._processes: dict[str, BackgroundProcess] = {}
        self._labels: dict[str, str] = {}
        self._cancelled: set[str] = set()
        self._lock = asyncio.Lock()  # a second start with the same id waits for the first one
        self._recording: set[asyncio.Task[None]] = set()

    async def start(
        self,
        sandbox: Sandbox,
        process_id: str,
        command: str | Sequence[str],
        *,
        label: str,
        cwd: str | None,
        env: Mapping[str, str],
        stdin: bytes | None = None,
        merge_stderr: bool = False,
    ) -> BackgroundProcess:
        """Start a command and return its process.

        If a process was started under this id before, that one is returned.

        Raises:
            ProcessRefused: The id is invalid, or its start was cancelled.
            DirectoryNotEntered: Its working directory cannot be entered.
            ResourceCreationFailed: It could not be started.
        """
        if not _PROCESS_ID.fullmatch(process_id):
            raise ProcessRefused(f"Not an id for a process: {process_id!r:.80}")
        async with self._lock:
            if process_id in self._cancelled:
                raise ProcessRefused(f"The start of process {process_id} was cancelled.")
            if process_id in self._processes:
                return self._processes[process_id]
            self._directory.mkdir(mode=0o700, exist_ok=True)
            stores = tuple(os.fspath(self._directory / f"{process_id}.{name}") for name in ("stdout", "stderr"))
            process = await sandbox.start_background(
                command, (stores[0], stores[1]), cwd=cwd, env=env, stdin=stdin, merge_stderr=merge_stderr
            )
            self._processes[process_id], self._labels[process_id] = process, label
        recording = asyncio.create_task(self._record(process, label))
        self._recording.add(recording)
        recording.add_done_callback(self._recording.discard)
        return process

    def find(self, process_id: str) -> BackgroundProcess:
        """Return a process by its id.

        Raises:
            ProcessRefused: There is none.
        """
        if process_id not in self._processes:
            raise ProcessRefused(f"There is no process {process_id:.80} in this session.")
        return self._processes[process_id]

    def list(self) -> list[tuple[str, str, BackgroundProcess]]:
        """Return the id, label and process of each, the newest last."""
        return [(process_id, self._labels[process_id], process) for process_id, process in self._processes.items()]

    def remove(self, process_id: str) -> None:
        """Forget a process that has ended, and remove its output.

        Raises:
            ProcessRefused: It still runs.
        """
        process = self._processes.get(process_id)
        if process is None:
            return
        if not process.ended.done():
            raise ProcessRefused(f"Process {process_id} still runs.")
        process.remove_output()
        del self._processes[process_id], self._labels[process_id]

    async def cancel(self, process_id: str) -> None:
        """Kill a process and remove its output.

        No process starts under its id any more.

        Raises:
            ProcessRefused: It did not end.
        """
        self._cancelled.add(process_id)
        async with self._lock:  # a start that is under way ends first
            process = self._processes.get(process_id)
        if process is not None:
            process.kill()
            await process.wait(_KILL_WAIT_SECONDS)
        self.remove(process_id)

    async def _record(self, process: BackgroundProcess, label: str) -> None:
        with self._history.record("background", label) as entry:
            entry.set_output_source(process.tail)
            try:
                entry.set_result(exit_code=await asyncio.shield(process.ended))
            except SandboxGone:
                entry.set_result(failed=True, note="the session ended")
