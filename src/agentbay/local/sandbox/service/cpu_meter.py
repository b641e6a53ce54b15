"""How many processors a session keeps busy."""

from __future__ import annotations

import time


class CpuMeter:
    """Turns processor time into the number of busy processors between two samples.

    Args:
        since: The monotonic time at which `cpu_seconds` was 0, for the first sample.
    """

    def __init__(self, since: float) -> None:
        self._sampled_at, self._cpu_seconds = since, 0.0

    def sample(self, cpu_seconds: float) -> float:
        """Return the average number of busy processors since the last sample."""
        now = time.monotonic()
        busy = max(0.0, cpu_seconds - self._cpu_seconds) / max(now - self._sampled_at, 1e-3)
        self._sampled_at, self._cpu_seconds = now, cpu_seconds
        return busy
