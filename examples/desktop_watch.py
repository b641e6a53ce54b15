"""Follow a long job in a window: by its title, and by a picture of the screen.

python examples/desktop_watch.py
"""

from __future__ import annotations

import io
import time

from PIL import Image

from agentbay import AgentBay, CreateSessionParams, Session

JOB = r"""for i in 1 2 3; do printf '\033]0;step %s\007' $i; sleep 0.3; done; printf '\033]0;done\007'; sleep 60"""


def title(session: Session) -> str:
    """Return the title of the window in front."""
    window = session.computer.get_active_window().window
    return window.title if window is not None else ""


if __name__ == "__main__":
    with AgentBay.local() as bay, bay.session(CreateSessionParams(image_id="linux_latest")) as session:
        session.file_system.write_file("job.sh", JOB).unwrap()
        session.computer.start_app("xterm -fullscreen -bg '#204080' -e sh job.sh").unwrap()
        deadline = time.monotonic() + 60
        while title(session) != "done" and time.monotonic() < deadline:
            time.sleep(0.1)
        print("the window says:", title(session))
        picture = Image.open(io.BytesIO(session.computer.beta_take_screenshot("png").data)).convert("RGB")
        print(
            "the screen is", picture.size, "and its middle", picture.getpixel((picture.width // 2, picture.height // 2))
        )
