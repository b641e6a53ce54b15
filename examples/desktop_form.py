"""Fill in the form of a program with windows, beside a second program, and read both back.

python examples/desktop_form.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

from agentbay import AgentBay, CreateSessionParams, Session, Window

FORM = """
wm title . Order
wm geometry . 300x120+50+50
grid [entry .name -width 30] [entry .count -width 5]
grid [entry .what -width 30] [button .send -text Send -command {
    set file [open order.txt w]
    fconfigure $file -encoding utf-8
    puts $file "[.count get] x [.what get] for [.name get]"
    exit
}]
focus -force .name
"""


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition is true, for at most 60 s."""
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)


def open_windows(session: Session) -> list[Window]:
    """Start both programs, and return their windows."""
    session.file_system.write_file("form.tcl", FORM).unwrap()
    session.computer.start_app("wish form.tcl").unwrap()
    session.computer.start_app("xterm -u8 -T Notes -e sh -c 'read note; echo $note > note.txt'").unwrap()
    wait_for(lambda: len(session.computer.list_root_windows().windows) == 2)
    return session.computer.list_root_windows().windows


def fill_in(session: Session, form: Window, notes: Window) -> None:
    """Type into both windows, as a person would."""
    computer = session.computer
    computer.activate_window(form.window_id).unwrap()
    for text, key in (("Zoë", "Tab"), ("3", "Tab"), ("Blätterteig", "Tab"), ("", "Space")):
        computer.input_text(text).unwrap()
        computer.press_keys([key]).unwrap()
    wait_for(lambda: session.file_system.read_file("order.txt").content != "")
    computer.activate_window(notes.window_id).unwrap()
    computer.input_text("paid 漢字\n").unwrap()
    wait_for(lambda: session.file_system.read_file("note.txt").content != "")


if __name__ == "__main__":
    with AgentBay.local() as bay, bay.session(CreateSessionParams(image_id="linux_latest")) as session:
        form, notes = open_windows(session)
        print(f"2 windows: {form.title}, {notes.title}")
        fill_in(session, form, notes)
        print("order:", session.file_system.read_file("order.txt").content.strip())
        print("note:", session.file_system.read_file("note.txt").content.strip())
