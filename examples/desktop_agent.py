"""The loop of a computer-use agent: look at a screenshot, decide, click, look again.

Here a few lines that look for red pixels take the place of the model.

python examples/desktop_agent.py
"""

from __future__ import annotations

import io
import time

from PIL import Image

from agentbay import AgentBay, CreateSessionParams, Session

# A button that jumps to another place at each click, and is gone after the third.
GAME = """
wm geometry . 600x400+100+100
set clicks 0
proc jump {} {
    global clicks
    if {$clicks == 3} {puts [open clicks.txt w] $clicks; exit}
    incr clicks
    place .button -x [expr {$clicks * 137 % 450}] -y [expr {$clicks * 91 % 300}]
}
button .button -text "click me" -background #ff0000 -activebackground #ff0000 -command jump
jump
"""


def find_red(image: Image.Image) -> tuple[int, int] | None:
    """Return the middle of what is red, or None."""
    difference = image.convert("RGB").convert("L", (1.0, -1.0, -1.0, 0.0))  # red without green and blue
    box = difference.point([255 if value > 240 else 0 for value in range(256)]).getbbox()
    return ((box[0] + box[2]) // 2, (box[1] + box[3]) // 2) if box else None


def play(session: Session) -> str:
    """Click at what is red until the program has ended, and return what it counted."""
    session.file_system.write_file("game.tcl", GAME).unwrap()
    session.computer.start_app("wish game.tcl").unwrap()
    clicks, last, deadline = 0, None, time.monotonic() + 120
    while session.computer.list_visible_apps().unwrap().data:
        if time.monotonic() > deadline:
            raise TimeoutError("the program does not end")
        target = find_red(Image.open(io.BytesIO(session.computer.beta_take_screenshot().data)))
        if target and target != last:  # the same place is an old picture: the program has not drawn yet
            clicks, last = clicks + 1, target
            print(f"click {clicks} at {target}")
            session.computer.click_mouse(*target).unwrap()
    return session.file_system.read_file("clicks.txt").unwrap().content.strip()


if __name__ == "__main__":
    with AgentBay.local() as bay, bay.session(CreateSessionParams(image_id="linux_latest")) as session:
        print(f"the program counted {play(session)} clicks")
