"""Browsers of this machine for sessions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

INSTALL_HINT = "apt-get install chromium"
MOUNT_POINT = "/opt/browser"  # where sessions see a browser that is installed outside of /usr


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

    @property
    def directory(self) -> str | None:
        """The directory to show to sessions, None if they see it already."""
        return None if self.path.startswith("/usr/") else os.path.dirname(self.path)


# Sandboxes see /usr, and nothing of a user's home or of /opt.
_ENGINES = (
    BrowserEngine("/usr/lib/chromium/chromium", "chromium"),
    BrowserEngine("/usr/lib/chromium-browser/chromium-browser", "chromium"),
    BrowserEngine("/usr/lib64/chromium-browser/chromium-browser", "chromium"),
    BrowserEngine("/usr/lib/google-chrome/chrome", "chrome"),
    BrowserEngine("/usr/lib/chromium/chromium-headless-shell", "chromium", True),
    BrowserEngine("/usr/lib/chromium/headless_shell", "chromium", True),
)
# Where the packages of Playwright (PyPI, npm) and Puppeteer (npm) keep the browsers that they have downloaded. Each
# entry has the variable and the default of a directory, then a pattern of programs below it.
_PLAYWRIGHT = ("PLAYWRIGHT_BROWSERS_PATH", "~/.cache/ms-playwright")
_PUPPETEER = ("PUPPETEER_CACHE_DIR", "~/.cache/puppeteer")
_DOWNLOADS = (
    (*_PLAYWRIGHT, "chromium-*/chrome-linux*/chrome", "chromium", False),
    (*_PLAYWRIGHT, "chromium_headless_shell-*/*/*headless*shell", "chromium", True),
    (*_PUPPETEER, "chrome/*/chrome-linux*/chrome", "chrome", False),
    (*_PUPPETEER, "chrome-headless-shell/*/*/chrome-headless-shell", "chrome", True),
)
_NUMBER = re.compile(r"\d+")


def find_engine(kind: str | None = None) -> BrowserEngine | None:
    """Return the first browser that is installed, of a kind if one is given."""
    for engine in (*_ENGINES, *_downloaded()):
        if kind in (None, engine.kind) and os.access(engine.path, os.X_OK):
            return engine
    return None


def _downloaded() -> Iterator[BrowserEngine]:
    for variable, default, pattern, kind, is_headless_shell in _DOWNLOADS:
        directory = Path(os.environ.get(variable) or default).expanduser()
        for program in sorted(directory.glob(pattern), key=_version, reverse=True):
            yield BrowserEngine(str(program.resolve()), kind, is_headless_shell)


def _version(program: Path) -> list[int]:
    return [int(number) for number in _NUMBER.findall(str(program))]
