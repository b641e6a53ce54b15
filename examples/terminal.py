"""Drive an interactive program through a terminal: prompts, a password, Ctrl-C.

python examples/terminal.py
"""

from __future__ import annotations

import threading

from agentbay import AgentBay, Session

INSTALLER = """
import getpass, time
name = input("Project name: ")
secret = getpass.getpass("Password: ")
print(f"Setting up {name} with a password of {len(secret)} characters")
try:
    while True:
        print("working")
        time.sleep(0.2)
except KeyboardInterrupt:
    print("cancelled by the user")
"""


class Screen:
    """The terminal's output so far, and a way to wait for text."""

    def __init__(self) -> None:
        self.text = ""
        self._more = threading.Condition()

    def show(self, data: bytes) -> None:
        with self._more:
            self.text += data.decode(errors="replace")
            self._more.notify_all()

    def wait_for(self, text: str) -> None:
        """Wait until the text was shown, for at most 30 s."""
        with self._more:
            if not self._more.wait_for(lambda: text in self.text, timeout=30):
                raise TimeoutError(f"{text!r} was never shown; what was: {self.text!r}")


def install(session: Session) -> str:
    """Answer the program's questions, stop it, and return the screen."""
    session.file_system.write_file("install.py", INSTALLER).unwrap()
    screen = Screen()
    terminal = session.pty.create(cols=80, rows=24, on_data=screen.show)
    terminal.send_input(b"python3 install.py; exit\n")
    screen.wait_for("Project name: ")
    terminal.send_input(b"shop\n")
    screen.wait_for("Password: ")
    terminal.send_input(b"correct horse\n")  # not shown: the program has turned the echo off
    screen.wait_for("working")
    terminal.send_input(b"\x03")
    screen.wait_for("cancelled")
    terminal.wait(timeout_s=30)
    return screen.text


if __name__ == "__main__":
    with AgentBay.local() as bay, bay.session() as session:
        shown = install(session)
    print(next(line for line in shown.splitlines() if line.startswith("Setting up")))
    print("the password was shown:", "correct horse" in shown)
    print("cancelled:", "cancelled by the user" in shown)
