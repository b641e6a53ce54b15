"""Which applications are installed."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

_MENU_DIRECTORIES = ("/usr/local/share/applications", "/usr/share/applications", "~/.local/share/applications")
_DESKTOP_DIRECTORIES = ("~/Desktop",)
_ENTRY = "Desktop Entry"
_FIELD_CODE = re.compile(r"%[a-zA-Z]")  # a placeholder for a file to open, which is left out
_SYSTEM_CATEGORIES = {"Settings", "Screensaver"}
_TERMINAL_COMMAND = "xterm -e "


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
        # A damaged entry is shown by no menu either.
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
