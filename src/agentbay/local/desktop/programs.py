"""The programs of this machine that make a desktop."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

INSTALL_HINT = "apt-get install tigervnc-standalone-server blackbox"
VIEWER_INSTALL_HINT = "apt-get install novnc"
_VIEWER = Path("/usr/share/novnc")  # where Debian and its relatives put noVNC
_LIBRARIES_HINT = 'pip install "agentbay-sdk[local]"'
_SANDBOX_PATH = "/usr/local/bin:/usr/bin:/bin"  # the part of PATH that sandboxes share with this machine


class DesktopPrograms(NamedTuple):
    """Paths of the programs of a desktop.

    Attributes:
        display: An X server that shows its screen over VNC too.
        window_manager: A window manager that follows the Extended Window Manager Hints (EWMH).
    """

    display: str
    window_manager: str


def find_programs() -> DesktopPrograms | None:
    """Return the programs, or None if one is missing."""
    display, manager = (shutil.which(name, path=_SANDBOX_PATH) for name in ("Xtigervnc", "blackbox"))
    return DesktopPrograms(display, manager) if display and manager else None


def find_viewer() -> Path | None:
    """Return the directory of noVNC, which pages show desktops with, or None."""
    return _VIEWER if (_VIEWER / "core/rfb.js").is_file() else None


def missing_message() -> str:
    """Return what this machine lacks for desktops and how to install it, or ""."""
    if find_programs() is None:
        return f"This machine has no X server and window manager that sessions can see. Install them: {INSTALL_HINT}"
    if find_spec("Xlib") is None or find_spec("PIL") is None:
        return f"Desktops need python-xlib and Pillow. Install them: {_LIBRARIES_HINT}"
    return ""
