"""Browsers of this machine that sessions can see."""

from __future__ import annotations

import os
from typing import NamedTuple

INSTALL_HINT = "apt-get install chromium"


class BrowserEngine(NamedTuple):
    """A browser program.

    Attributes:
        path: The program itself, not Debian's wrapper script: killing a script leaves its child behind.
        kind: "chromium" or "chrome", as `BrowserOption.browser_type` has it.
        is_headless_shell: Whether it has no window at all, so that it needs no flag for that.
    """

    path: str
    kind: str
    is_headless_shell: bool = False


# Sandboxes see /usr, and nothing of a user's home or of /opt.
_ENGINES = (
    BrowserEngine("/usr/lib/chromium/chromium", "chromium"),
    BrowserEngine("/usr/lib/chromium-browser/chromium-browser", "chromium"),
    BrowserEngine("/usr/lib64/chromium-browser/chromium-browser", "chromium"),
    BrowserEngine("/usr/lib/google-chrome/chrome", "chrome"),
    BrowserEngine("/usr/lib/chromium/chromium-headless-shell", "chromium", True),
    BrowserEngine("/usr/lib/chromium/headless_shell", "chromium", True),
)


def find_engine(kind: str | None = None) -> BrowserEngine | None:
    """Return the first browser that is installed, of a kind if one is given."""
    for engine in _ENGINES:
        if kind in (None, engine.kind) and os.access(engine.path, os.X_OK):
            return engine
    return None
