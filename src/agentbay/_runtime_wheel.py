"""Packs the installed package as a wheel, for the image of the local runtime."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib import metadata
from pathlib import Path

from .errors import ConfigurationError

_PACKAGE = Path(__file__).parent
_DISTRIBUTION = "agentbay-sdk"
_WHEEL = "Wheel-Version: 1.0\nGenerator: agentbay\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_TAG_DIGITS = 12


def write_wheel(directory: Path) -> str:
    """Write a wheel of this package, as it is on this machine.

    Returns:
        The version and a digest of all files, as the tag of an image.

    Raises:
        ConfigurationError: It is not installed, so that nothing says what it depends on.
    """
    try:
        distribution = metadata.distribution(_DISTRIBUTION)
    except metadata.PackageNotFoundError as error:
        raise ConfigurationError(
            f"{_DISTRIBUTION} is not installed, so no image can be made of it.",
            hint="Install it with pip, or give container_image=...",
        ) from error
    stem = f"{_DISTRIBUTION.replace('-', '_')}-{distribution.version}"
    files = _files(distribution, f"{stem}.dist-info")
    rows = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    record = f"{stem}.dist-info/RECORD"
    with zipfile.ZipFile(directory / f"{stem}-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
        wheel.writestr(record, "\n".join([*rows, f"{record},,", ""]))
    digest = hashlib.sha256("\n".join(rows).encode()).hexdigest()
    return f"{distribution.version}-{digest[:_TAG_DIGITS]}"


def _files(distribution: metadata.Distribution, dist_info: str) -> dict[str, bytes]:
    """Return the contents of the wheel by name, in the order of names."""
    names = sorted(path.relative_to(_PACKAGE.parent).as_posix() for path in _PACKAGE.rglob("*") if path.is_file())
    files = {name: (_PACKAGE.parent / name).read_bytes() for name in names if "/__pycache__/" not in name}
    for name in ("METADATA", "entry_points.txt"):
        files[f"{dist_info}/{name}"] = (distribution.read_text(name) or "").encode()
    return files | {f"{dist_info}/WHEEL": _WHEEL.encode()}


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
