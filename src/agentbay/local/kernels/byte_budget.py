"""The memory that the kernels of one session may take in the service."""

from __future__ import annotations

SESSION_BUDGET_BYTES = 128 << 20  # room for one execution with all its limits used, and for a frame on its way


class ByteBudget:
    """A count of bytes that has an upper limit.

    Each stream, display and frame has a limit of its own. The budget bounds their sum over all kernels of a session, so
    that no session can exhaust the memory of the service.
    """

    def __init__(self, limit_bytes: int = SESSION_BUDGET_BYTES) -> None:
        self._left = limit_bytes

    def try_reserve(self, size: int) -> bool:
        """Reserve bytes, or return False if that many are not left."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def release(self, size: int) -> None:
        """Give back reserved bytes."""
        self._left += size
