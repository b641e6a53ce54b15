"""Memory and disk space that are hard to see count too.

See `hoards.py` for the ways.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("sandboxes need Linux", allow_module_level=True)

from tests.local.users import ROOT, USERS, run_experiment

PROGRAM = Path(__file__).with_name("hoards.py")
STOPPED = {
    "memory file": "killed",
    "socket buffers": "killed",
    "page tables": "killed",
    "System V segments": "refused 28",  # ENOSPC
    "mapping of a deleted file": "killed",
    "directory without permissions": "killed",
    "deleted file of an undumpable process": "killed",
}
SEEN_BY_ROOT = ("directory without permissions", "deleted file of an undumpable process")


def hoard(user: str, lacking: str = "") -> dict[str, str]:
    """Try every way as a user, without the layer `lacking`."""
    results: dict[str, str] = run_experiment(user, PROGRAM, lacking, timeout=150)
    return results


@pytest.mark.parametrize("user", USERS)
def test_hoards_are_stopped(user: str) -> None:
    """A sandbox cannot hoard memory or disk space beyond its limits."""
    assert hoard(user) == STOPPED


@pytest.mark.parametrize("user", USERS)
def test_hoards_without_the_layers(user: str) -> None:
    """Without the layers, the same programs keep what they hoard."""
    results = hoard(user, "all")
    is_root = ROOT and user == "own"
    assert [name for name, result in results.items() if result != "done"] == (list(SEEN_BY_ROOT) if is_root else [])
