"""What commands in the background have written, for the log: read from the session's files when somebody looks."""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from typing import Any

from agentbay.errors import AgentBayError
from agentbay.local.journal import Entry
from agentbay.local.sandbox.host import FileOperationFailed, Running, SandboxError
from agentbay.local.session import Session, State

_PERIOD = 1.0  # seconds between two looks, at least
_SHARE = 10  # of the time, one part at most is spent on looking
_MOST = 8  # commands that are looked at; those begun last
_TAIL = 16 << 10  # bytes

Files = dict[str, dict[str, Any]]  # by name


class Background:
    """Looks after what was started in the background of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._sizes: dict[int, tuple[int, int]] = {}  # of both streams, by the number of the entry
        self._next = 0.0

    async def look(self, processes: Sequence[Running]) -> None:
        """Bring the log up to date.

        Args:
            processes: What runs in the session, as it was just before.
        """
        entries = self._session.journal.in_background()[-_MOST:]
        began = time.monotonic()
        if not entries or began < self._next or self._session.state is not State.RUNNING:
            return
        try:
            for entry in entries:
                await self._look_at(entry, processes)
        except (AgentBayError, SandboxError):  # it was paused, or ends, in this very moment
            return
        finally:
            self._next = time.monotonic() + max(_PERIOD, _SHARE * (time.monotonic() - began))

    async def _look_at(self, entry: Entry, processes: Sequence[Running]) -> None:
        try:
            result, _ = await self._session.peek("list", {"path": entry.directory})
            files = {file["name"]: file for file in result["entries"]}
            if not {"stdout", "stderr"} <= files.keys():  # it is being removed
                return
            await self._read_output(entry, files)
            if "exit" in files:
                code = await self._tail(entry, files["exit"])
                self._end(entry, files["exit"]["mtime"], code=int(code))
            elif not any(entry.directory in process.command for process in processes):
                self._end(entry, time.time(), failed=True, note="it was killed from outside, and left no exit code")
        except ValueError:
            self._end(entry, time.time(), failed=True, note="it left no exit code")
        except FileOperationFailed as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):  # after anything else it is tried again
                self._end(entry, time.time(), note="its output was removed")

    def _end(self, entry: Entry, when: float, *, code: int | None = None, failed: bool = False, note: str = "") -> None:
        entry.end(exit_code=code, failed=failed, note=note)
        self._session.journal.finish(entry, when)

    async def _read_output(self, entry: Entry, files: Files) -> None:
        out, err = files["stdout"], files["stderr"]
        sizes = out["size"], err["size"]
        if self._sizes.get(entry.number) != sizes:
            if entry.wrote(await self._tail(entry, out), await self._tail(entry, err)):
                self._session.journal.note_change(entry)
            self._sizes[entry.number] = sizes

    async def _tail(self, entry: Entry, file: dict[str, Any]) -> bytes:
        part = {"offset": max(0, file["size"] - _TAIL), "length": _TAIL}
        _, data = await self._session.peek("read", {"path": f"{entry.directory}/{file['name']}", **part})
        return data
