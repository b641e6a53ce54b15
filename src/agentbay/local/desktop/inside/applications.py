"""Applications: their start, and what became of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import IO

from agentbay.local.desktop.inside import processes
from agentbay.local.desktop.inside.refusal import Refused

_MAX_REASON_BYTES = 500


class Applications:
    """Starts applications, and tells what became of them."""

    def __init__(self) -> None:
        self._started: dict[int, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}  # with their output, by process
        self._shown: list[subprocess.Popen[bytes]] = []

    def start(self, command: str, directory: str, environment: Mapping[str, str]) -> int:
        """Start a command of the shell, and return its process.

        Raises:
            Refused: The command is empty, or the directory cannot be used.
        """
        if not command.strip():
            raise Refused("start_cmd must not be empty")
        import tempfile

        output = tempfile.TemporaryFile()  # noqa: SIM115 # closed in `state`
        try:
            process = subprocess.Popen(
                ["sh", "-c", command],
                cwd=os.path.expanduser(directory or "~"),
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            output.close()
            raise Refused(f"work_directory {directory!r:.200} cannot be used: {error.strerror}") from error
        self._started[process.pid] = (process, output)
        return process.pid

    def state(self, leader: int, visible_pids: list[int], *, is_last: bool) -> list[dict[str, object]] | None:
        """Describe the processes of a command once one shows a window.

        Also once all have ended; before that, return None.

        Args:
            is_last: Describe them in any case.

        Raises:
            Refused: The command has failed.
        """
        members = processes.session_of(leader)
        if members and not is_last and not set(members) & set(visible_pids):
            return None
        process, output = self._started.pop(leader)
        with output:
            if process.poll() and not members:
                raise Refused(f"the command has ended with exit code {process.returncode}: {_read_end(output)}")
        self._shown.append(process)
        # The shell that waits for the command is no part of the application.
        if len(members) > 1 and processes.name_of(leader) == "sh":
            members.remove(leader)
        return processes.describe(members)

    def reap(self) -> None:
        """Collect what has ended, which would be left as zombies otherwise."""
        self._shown = [process for process in self._shown if process.poll() is None]
        for process, _ in self._started.values():
            process.poll()


def _read_end(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - _MAX_REASON_BYTES))
    return output.read().decode("utf-8", "replace").strip()
