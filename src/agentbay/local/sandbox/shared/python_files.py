"""Writing the files of a sandbox's Python environment."""

from __future__ import annotations

import os
from contextlib import suppress

from agentbay.local.sandbox.shared.sandbox_config import PythonLayout


def write(prefix: str, layout: PythonLayout, owner: tuple[int, int] | None = None) -> None:
    """Write what is not there yet.

    Args:
        owner: Uid and gid of what is written; None for those of this process.
    """
    for directory in layout["directories"]:
        with suppress(FileExistsError):
            os.mkdir(f"{prefix}/{directory}", 0o755)
            _finish(f"{prefix}/{directory}", 0o755, owner)
    for link, target in layout["links"].items():
        with suppress(FileExistsError):
            os.symlink(target, f"{prefix}/{link}")
            _finish(f"{prefix}/{link}", None, owner)
    for kind, mode in (("files", 0o644), ("programs", 0o755)):
        for name, content in layout[kind].items():  # type: ignore[literal-required]
            with suppress(FileExistsError):
                fd = os.open(f"{prefix}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
                os.write(fd, content.encode())
                os.close(fd)
                _finish(f"{prefix}/{name}", mode, owner)


def _finish(path: str, mode: int | None, owner: tuple[int, int] | None) -> None:
    if mode is not None:
        os.chmod(path, mode)  # whatever the umask
    if owner:
        os.lchown(path, *owner)
