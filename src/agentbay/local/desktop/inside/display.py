"""The X server and the window manager, and their start."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any

from agentbay.local.desktop.inside.refusal import Refused

DIRECTORY = Path("/tmp/.agentbay-desktop")  # seen by this session only: /tmp is the session's own
AUTHORITY = DIRECTORY / "Xauthority"
VNC_SOCKET = DIRECTORY / "vnc"
_LOG = DIRECTORY / "log"
_COOKIE_BYTES = 16
_FAMILY_LOCAL = 256  # in the format of Xau: a connection over a unix socket
_BLACKBOX_SETTINGS = DIRECTORY / "blackbox"
_BLACKBOX_TEXT = "session.screen0.toolbar.widthPercent: 100\nsession.imageDither: False\n"


def start_server(program: str, width: int, height: int) -> tuple[subprocess.Popen[bytes], int]:
    """Start an X server.

    Return it with the descriptor that tells the number of its display when it is ready.
    """
    DIRECTORY.mkdir(mode=0o700, exist_ok=True)
    DIRECTORY.chmod(0o700)
    VNC_SOCKET.unlink(missing_ok=True)
    reader, writer = os.pipe()
    command = [
        program, "-displayfd", str(writer), "-auth", str(AUTHORITY), "-geometry", f"{width}x{height}", "-depth", "24",
        # No TCP port and no abstract socket, which another network namespace's owner could reach. Only a path in /tmp.
        "-nolisten", "tcp", "-nolisten", "local", "-rfbport", "-1", "-rfbunixpath", str(VNC_SOCKET),
        "-rfbunixmode", "0600", "-SecurityTypes", "None", "-AlwaysShared", "-AcceptSetDesktopSize=0",
        "-noreset", "-s", "0", "-dpi", "96", "-desktop", "desktop",
    ]  # fmt: skip
    with _LOG.open("wb") as log:
        server = subprocess.Popen(command, pass_fds=[writer], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    os.close(writer)
    return server, reader


def write_cookie() -> None:
    """Write the cookie without which the X server lets no client in."""
    DIRECTORY.mkdir(mode=0o700, exist_ok=True)
    AUTHORITY.unlink(missing_ok=True)
    # An empty display number stands for every display.
    fields = [socket.gethostname().encode(), b"", b"MIT-MAGIC-COOKIE-1", os.urandom(_COOKIE_BYTES)]
    entry = struct.pack(">H", _FAMILY_LOCAL) + b"".join(struct.pack(">H", len(field)) + field for field in fields)
    fd = os.open(AUTHORITY, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    os.write(fd, entry)
    os.close(fd)


def read_display_number(server: subprocess.Popen[bytes], reader: int) -> str:
    """Wait for the X server, and return the number of its display.

    Raises:
        Refused: It ended at its start.
    """
    with os.fdopen(reader, "rb") as pipe:
        number = pipe.readline().strip().decode()
    if not number.isdecimal():
        server.wait()
        raise Refused(f"The X server has ended at its start: {read_log()}")
    return number


def start_window_manager(program: str) -> subprocess.Popen[bytes]:
    """Start the window manager."""
    _BLACKBOX_SETTINGS.write_text(_BLACKBOX_TEXT)
    with _LOG.open("ab") as log:
        return subprocess.Popen(
            [program, "-rc", str(_BLACKBOX_SETTINGS)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def read_log() -> str:
    """Return the end of the log of both programs."""
    try:
        return _LOG.read_text("utf-8", "replace").strip()[-500:]
    except OSError:
        return "it has written nothing"


def connect(number: str) -> Any:
    """Return a connection to the display."""
    from Xlib.display import Display

    return Display(f":{number}")
