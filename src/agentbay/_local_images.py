"""Images on this machine, before they are sent.

All of it blocks: callers use `async_run_blocking`.
"""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

from .errors import FileError

_SUFFIXES = re.compile(r"(\.(tar|tgz|gz|xz|bz2|zst|oci))+$")
_UNUSUAL = re.compile(r"[^a-z0-9._-]+")


def archive_name(path: Path) -> str:
    """Return a name for the image in a file or a folder."""
    name = _UNUSUAL.sub("-", _SUFFIXES.sub("", path.resolve().name.lower())).strip("-._")
    return name or "image"


def pack_folder(folder: Path, archive: Path) -> None:
    """Write a folder into a tar archive, as it is.

    Raises:
        FileError: If something in it cannot be read.
    """
    try:
        with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as writer:
            writer.add(folder, ".")
    except OSError as error:
        raise FileError(f"{error.filename or folder}: {error.strerror or error}") from error
