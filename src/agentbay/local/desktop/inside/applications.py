"""Applications: which are installed, and their start."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from agentbay.local.desktop.inside import processes
from agentbay.local.desktop.inside.refusal import Refused

_MENU_DIRECTORIES = ("/usr/local/share/applications", "/usr/share/applications", "~/.local/share/applications")
_DESKTOP_DIRECTORIES = ("~/Desktop",)
_ENTRY = "Desktop Entry"
_FIELD_CODE = re.compile(r"%[a-zA-Z]")  # stands for a file to open, which there is none
_SYSTEM_CATEGORIES = {"Settings", "Screensaver"}
_TERMINAL_COMMAND = "xterm -e "
_MAX_REASON_CHARACTERS = 500


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
    output.seek(0)
    return output.read().decode("utf-8", "replace").strip()[-_MAX_REASON_CHARACTERS:]


def installed(*, start_menu: bool, desktop: bool, ignore_system: bool) -> list[dict[str, str]]:
    """Describe the applications that have an entry in those places."""
    directories = (*(_MENU_DIRECTORIES if start_menu else ()), *(_DESKTOP_DIRECTORIES if desktop else ()))
    files = [file for directory in directories for file in sorted(Path(directory).expanduser().glob("*.desktop"))]
    # Entries of a person's own directory come later, and replace those of the same name.
    by_name = {file.name: file for file in files}
    found = [app for file in by_name.values() if (app := _read_entry(file, ignore_system))]
    return sorted(found, key=lambda app: app["name"].casefold())


def _read_entry(file: Path, ignore_system: bool) -> dict[str, str] | None:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign] # keys are case-sensitive here
    try:
        parser.read_string(file.read_text("utf-8", "replace"))
        entry = dict(parser[_ENTRY])
    except (OSError, configparser.Error, KeyError):
        return None
    command = _FIELD_CODE.sub("", entry.get("Exec", "")).replace("%%", "%").strip()
    if entry.get("Type") != "Application" or entry.get("Hidden") == "true" or not command or not _is_there(entry):
        return None
    categories = set(entry.get("Categories", "").split(";"))
    if ignore_system and (entry.get("NoDisplay") == "true" or categories & _SYSTEM_CATEGORIES):
        return None
    start = _TERMINAL_COMMAND + command if entry.get("Terminal") == "true" else command
    stop = f"pkill -x {shlex.quote(os.path.basename(command.split()[0])[:15])}"
    app = {"name": entry.get("Name", file.stem), "start_cmd": start, "stop_cmd": stop}
    return {**app, "work_directory": entry["Path"]} if entry.get("Path") else app


def _is_there(entry: Mapping[str, str]) -> bool:
    return "TryExec" not in entry or shutil.which(entry["TryExec"]) is not None
