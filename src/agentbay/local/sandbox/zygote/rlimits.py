"""Resource limits of a sandbox that need no control groups."""

from __future__ import annotations

import os
import resource

from agentbay.local.sandbox.shared.sandbox_config import RlimitsConfig


def apply_rlimits(limits: RlimitsConfig) -> None:
    """Set the limits of this process.

    All that it starts inherits them.
    """
    _lower_rlimit(resource.RLIMIT_CORE, 0)
    # counted for each user namespace since Linux 5.14, so the user's other programs do not count
    _lower_rlimit(resource.RLIMIT_NPROC, limits["processes"])
    # not RLIMIT_AS: java and node reserve far more addresses than they use
    _lower_rlimit(resource.RLIMIT_DATA, limits["memory_bytes"])
    _lower_rlimit(resource.RLIMIT_NOFILE, limits["open_files"])
    _lower_rlimit(resource.RLIMIT_FSIZE, limits["file_size"])
    if limits["nice"]:
        os.nice(limits["nice"])


def _lower_rlimit(kind: int, value: int | None) -> None:
    if value is None:
        return
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))
