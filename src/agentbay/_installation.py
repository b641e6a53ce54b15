"""Notices another package that has put its files into the folder of this one.

`wuying-agentbay-sdk` installs a folder `agentbay/` too, and so do packages that depend on it. Nothing of this package
is imported here, since any of its files may have been replaced.
"""

from __future__ import annotations

import warnings
from pathlib import Path

_ROOT = Path(__file__).parent
_ONLY_THEIRS = _ROOT / "_async" / "agentbay.py"
_REPAIR = (
    "To repair it: pip uninstall wuying-agentbay-sdk, then pip install --force-reinstall --no-deps agentbay-sdk. "
    'How to install a package that depends on it: docs/frameworks.md, "Published integrations".'
)


def find_damage() -> str:
    """Return what is wrong with the files of this package, or ""."""
    try:
        is_own = "_installation" in (_ROOT / "__init__.py").read_text(encoding="utf-8")
    except FileNotFoundError:
        return f"Files of agentbay-sdk are missing: another package that shares its folder was removed. {_REPAIR}"
    return "" if is_own else f"wuying-agentbay-sdk has replaced files of agentbay-sdk in {_ROOT}. {_REPAIR}"


def find_mixture() -> str:
    """Return a message if the other package has files here, or ""."""
    if not _ONLY_THEIRS.exists():
        return ""
    return f"wuying-agentbay-sdk has its files in {_ROOT} too, and would take files of agentbay-sdk with it. {_REPAIR}"


def warn_of_mixture() -> None:
    """Warn if the other package has files here."""
    if message := find_mixture():
        warnings.warn(message, UserWarning, stacklevel=3)
