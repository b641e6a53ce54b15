"""Limits that the kernel holds for each process, or for a user namespace, without cgroups."""

from __future__ import annotations

import math
import os
import resource

from agentbay.local.sandbox.shared.sandbox_config import RlimitsConfig


def apply_rlimits(limits: RlimitsConfig) -> None:
    """Put `limits` on this process and all it starts."""
    _lower_rlimit(resource.RLIMIT_CORE, 0)
    # counted for each user namespace (Linux 5.14 and later), hence without the user's other programs
    _lower_rlimit(resource.RLIMIT_NPROC, limits["processes"])
    # not RLIMIT_AS: java and node reserve far more addresses than they use
    _lower_rlimit(resource.RLIMIT_DATA, limits["memory_bytes"])
    _lower_rlimit(resource.RLIMIT_NOFILE, limits["open_files"])
    _lower_rlimit(resource.RLIMIT_FSIZE, limits["file_size"])
    if limits["nice"]:
        os.nice(limits["nice"])


def nice_for_cpu_share(share: int) -> int:
    """Return what stands for a share of processor time, 100 being an ordinary one; only root could go above that."""
    # kernel/sched/core.c, sched_prio_to_weight: each step is a factor of 1.25
    return min(max(round(math.log(100 / share, 1.25)), 0), 19)


def _lower_rlimit(kind: int, value: int | None) -> None:
    if value is None:
        return
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))
