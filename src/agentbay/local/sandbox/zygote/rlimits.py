"""Resource limits of a sandbox that need no control groups."""

from __future__ import annotations

import os
import resource

from agentbay.local.sandbox.shared.sandbox_config import RlimitsConfig

# counted for each user namespace, and in all of them together for each host uid
_MAX_PENDING_SIGNALS = 4096  # POSIX timers count too
_MAX_MESSAGE_QUEUE_BYTES = 200_000  # two queues of the default size


def apply_rlimits(limits: RlimitsConfig) -> None:
    """Set the limits of this process.

    All that it starts inherits them.
    """
    _lower_rlimit(resource.RLIMIT_CORE, 0)
    _lower_rlimit(resource.RLIMIT_SIGPENDING, _MAX_PENDING_SIGNALS)
    _lower_rlimit(resource.RLIMIT_MSGQUEUE, _MAX_MESSAGE_QUEUE_BYTES)
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
    # Only root may raise a hard limit, so a lower one of the host stays.
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))
