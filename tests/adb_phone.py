"""A phone for the real `adb` program: its server's protocol, with shell scripts for Android's commands."""

from __future__ import annotations

import io
import os
import socket
import socketserver
import struct
import subprocess
import threading
from pathlib import Path

VERSION = 41  # of adb's protocol: another one would make adb start a server of its own
STDOUT, STDERR, EXIT = 1, 2, 3  # packets of the shell protocol
WIDTH, HEIGHT, BARS = 120, 240, 20  # pixels of the example's screen, with a bar at its top and its bottom
ELEMENTS = """<?xml version='1.0' encoding='UTF-8' standalone='yes' ?><hierarchy rotation="0">
<node index="0" text="" class="android.widget.FrameLayout" package="com.example" bounds="[0,0][120,240]"
 clickable="false">
<node index="1" text="OK &amp; go" resource-id="com.example:id/ok" class="android.widget.Button" content-desc="go"
 package="com.example" bounds="[10,20][110,60]" clickable="true" /></node></hierarchy>"""


class _Handler(socketserver.StreamRequestHandler):
    server: AdbPhone

    def handle(self) -> None:
        service = self.read_service()
        if service.startswith("host:tport:"):  # what follows is for the phone
            if self.server.is_unplugged:
                self.fail("device not found")
                return
            self.wfile.write(b"OKAY" + struct.pack("<Q", 1))
            service = self.read_service()
        if service == "host:version":
            self.okay(f"{VERSION:04x}")
        elif service == "host:devices":
            self.okay("".join(f"{serial}\t{state}\n" for serial, state in self.server.states.items()))
        elif service.endswith("features"):
            self.okay("shell_v2,cmd")
        elif service.startswith("shell"):
            self.run(service.partition(":")[2])
        else:
            self.fail(f"not played: {service}")

    def read_service(self) -> str:
        return self.rfile.read(int(self.rfile.read(4) or b"0", 16)).decode()

    def okay(self, text: str) -> None:
        self.wfile.write(f"OKAY{len(text):04x}{text}".encode())

    def fail(self, text: str) -> None:
        self.wfile.write(f"FAIL{len(text):04x}{text}".encode())

    def run(self, command: str) -> None:
        self.wfile.write(b"OKAY")
        self.server.commands.append(command)
        environment = {**os.environ, "PATH": f"{self.server.programs}:{os.environ['PATH']}"}
        ended = subprocess.run(["sh", "-c", command], capture_output=True, env=environment, check=False)
        exit_code = bytes([ended.returncode])
        for kind, data in ((STDOUT, ended.stdout), (STDERR, ended.stderr), (EXIT, exit_code)):
            self.wfile.write(struct.pack("<BI", kind, len(data)) + data)


class AdbPhone(socketserver.ThreadingTCPServer):
    """An adb server on loopback with phones behind it.

    Attributes:
        states: The state of each phone, by its serial number.
        programs: A directory of Android's commands, as shell scripts.
        commands: The command lines that the phone has run.
        is_unplugged: Whether the phones are gone, which were listed a moment ago.
    """

    allow_reuse_address = daemon_threads = True

    def __init__(self, programs: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.states = {"R58M12ABCDE": "device"}
        self.programs = programs
        self.commands: list[str] = []
        self.is_unplugged = False
        programs.mkdir(exist_ok=True)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        """As the variable ADB_SERVER_SOCKET has it."""
        return f"tcp:127.0.0.1:{self.socket.getsockname()[1]}"

    def play(self, name: str, script: str) -> None:
        """Let a command of the phone be this shell script."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def finish_request(self, request: socket.socket, client_address: object) -> None:
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().finish_request(request, client_address)

    def close(self) -> None:
        self.shutdown()
        self.server_close()


def example_phone(directory: Path) -> AdbPhone:
    """Return a phone with an application, which keeps what was typed in the file `input` of a directory.

    Its screen is `screenN.png` there after N swipes. It comes to rest when its elements are asked for again.
    """
    phone = AdbPhone(directory / "programs")
    (directory / "input").touch()
    (directory / "elements.xml").write_text(ELEMENTS)
    (directory / "screen0.png").write_bytes(draw_screen(0))
    phone.play("input", f'echo "$@" >> {directory}/input')
    phone.play("uiautomator", f"[ -e {directory}/rest ] || {{ touch {directory}/rest; echo busy >&2; exit 1; }}")
    phone.play("cat", f"exec /bin/cat {directory}/elements.xml")
    phone.play("screencap", f"exec /bin/cat {directory}/screen$(grep -c ^swipe {directory}/input).png")
    phone.play("cmd", "echo priority=0 preferredOrder=0; echo com.example/.Main; echo com.android.settings/.Settings")
    phone.play("pm", "echo package:com.android.settings")
    phone.play("monkey", 'echo "$@"; [ "$2" != com.missing ] || echo "** No activities found to run"')
    phone.play("am", "true")
    phone.play("pidof", "echo 4242")
    return phone


def draw_screen(top: int) -> bytes:
    """Return the screen as PNG when the page on it is scrolled by so many rows."""
    from PIL import Image

    screen = Image.new("RGB", (WIDTH, HEIGHT), "white")
    for row in range(HEIGHT - 2 * BARS):
        screen.paste(color(top + row), (0, BARS + row, WIDTH, BARS + row + 1))
    file = io.BytesIO()
    screen.save(file, "PNG")
    return file.getvalue()


def color(row: int) -> tuple[int, int, int]:
    """Return the color of a row of the page, each of which has its own."""
    return row % 251, row // 251 * 80, 90
