"""The IPython that images without one get from the runtime."""

from __future__ import annotations

import os
import re
import shutil
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

from agentbay.local.sandbox.shared.sandbox_config import PYTHON_PREFIX

IPYTHON_COPY_PATH = f"{PYTHON_PREFIX}/ipython"  # where sessions see it
# completion only, which these kernels do without, and 15 MB
_LEFT_OUT = frozenset({"jedi", "parso"})
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)[^;]*(?:;(.*))?")
_MINIMUM = re.compile(r">=\s*(\d+)\.(\d+)")


@cache
def required_version() -> tuple[int, int]:
    """Return the oldest Python that can use it."""
    found = _MINIMUM.search(metadata.distribution("ipython").metadata["Requires-Python"] or "")
    return (int(found[1]), int(found[2])) if found else (3, 11)


def make_ipython_copy(directory: Path) -> Path | None:
    """Return a folder with IPython and what it needs, made at first.

    It is None if the runtime has no IPython.

    Args:
        directory: Where it is kept.
    """
    try:
        version = metadata.version("ipython")
    except metadata.PackageNotFoundError:
        return None
    target = directory / f"ipython-{version}-{sys.version_info.major}.{sys.version_info.minor}"
    if target.is_dir():
        return target
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    making = directory / f".{target.name}-{os.getpid()}"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(mode=0o755)
    for name in _needed("ipython"):
        for file in metadata.distribution(name).files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                _copy(Path(str(file.locate())), making / file)
    try:
        making.rename(target)
    except OSError:  # another thread was faster
        shutil.rmtree(making)
    return target


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target)
        target.chmod(0o644)
    except FileNotFoundError:  # it was removed after its installation
        return


def _needed(name: str, seen: frozenset[str] = frozenset()) -> frozenset[str]:
    """Return the distributions that one needs at least, itself among them."""
    seen |= {name}
    for line in metadata.requires(name) or ():
        match = _REQUIREMENT.match(line)
        assert match is not None
        wanted = match[1].lower().replace("_", "-")
        # A marker other than that of an extra names a platform or a version: what is not installed is not needed.
        if "extra" in (match[2] or "") or wanted in seen | _LEFT_OUT or not _is_installed(wanted):
            continue
        seen = _needed(wanted, seen)
    return seen


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
