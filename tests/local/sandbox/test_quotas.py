"""What the kernel counts for each host uid is limited for each sandbox.

See `quotas.py` for the experiment.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("sandboxes need Linux", allow_module_level=True)

from tests.local.users import ROOT, USERS, run_experiment

PROGRAM = Path(__file__).with_name("quotas.py")
COUNTS = {"terminals": 64, "inotify": 32, "signals": 4096, "queues": 2}
CALLS = {
    "io_setup": "ENOSYS", "memfd_secret": "ENOSYS", "fanotify_init": "EPERM", "modify_ldt": "EPERM",
    "personality": "EPERM", "asking for the personality": "OPEN", "socketpair": "EAFNOSUPPORT", "dumpable": 1,
}  # fmt: skip
WORKING = {"command": "hello\n", "file": 100_000, "terminal": "works", "new sandbox": "new\n"}
REFUSED = WORKING | {"terminal": "it could not be passed on: Too many references: cannot splice"}


def exhaust(user: str, lacking: str = "") -> dict[str, Any]:
    """Run the experiment as a user, without the layer `lacking`."""
    results: dict[str, Any] = run_experiment(user, PROGRAM, lacking, timeout=120)
    return results


@pytest.mark.parametrize("user", USERS)
def test_one_sandbox_exhausts_what_it_can(user: str) -> None:
    """A sandbox meets its own limits, and others go on working."""
    results = exhaust(user)
    assert results["counts"] == COUNTS
    assert results["calls"] == CALLS
    is_root = ROOT and user == "own"
    assert results["host ids differ"] == is_root
    # without host uids of their own, sandboxes share what may be in flight: passing descriptors is refused meanwhile
    assert results["flooded"] == (WORKING if is_root else REFUSED)
    assert results["afterwards"] == WORKING
    assert results["victim is alive"]


@pytest.mark.skipif(not ROOT, reason="only root has host uids for sandboxes")
def test_descriptors_in_flight_without_host_ids() -> None:
    """With one host uid, descriptors in flight stop terminals, and kill nothing."""
    results = exhaust("own", "host ids")
    assert (results["flooded"], results["afterwards"], results["victim is alive"]) == (REFUSED, WORKING, True)


@pytest.mark.parametrize(
    ("lacking", "counts"),
    [("terminals", {"terminals": 70}), ("inotify", {"inotify": 40}), ("rlimits", {"signals": 5000, "queues": 5})],
)
def test_counts_without_their_limit(lacking: str, counts: dict[str, int]) -> None:
    """Without its limit, a sandbox may have more."""
    assert exhaust("own", lacking)["counts"] == COUNTS | counts


def test_calls_without_the_filter() -> None:
    """Without the system call filter, the kernel answers."""
    calls = exhaust("own", "seccomp")["calls"]
    assert [name for name, result in calls.items() if result == CALLS[name]] == ["asking for the personality"]
