"""Writing the files of a sandbox's Python environment."""

from __future__ import annotations

import os
from contextlib import suppress

from agentbay.local.sandbox.shared.sandbox_config import PythonLayout


def write(prefix: str, layout: PythonLayout) -> None:
    """Write what an earlier life of the sandbox has not left there."""
    for directory in layout["directories"]:
        with suppress(FileExistsError):
            os.mkdir(f"{prefix}/{directory}", 0o755)
    for link, target in layout["links"].items():
        with suppress(FileExistsError):
            os.symlink(target, f"{prefix}/{link}")
    for kind, mode in (("files", 0o644), ("programs", 0o755)):
        for name, content in layout[kind].items():  # type: ignore[literal-required]
            with suppress(FileExistsError):
                fd = os.open(f"{prefix}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
                os.write(fd, content.encode())
                os.close(fd)
