"""The time limits of a session."""

from __future__ import annotations

from agentbay._lazy_attrs import define
from agentbay.local.api_errors import invalid_request


@define(frozen=True, slots=False)
class TimeLimits:
    """When a session expires.

    Attributes:
        idle_seconds: Seconds without activity; None is no limit.
        max_age_seconds: Seconds since its creation; None is no limit.
    """

    idle_seconds: float | None = None
    max_age_seconds: float | None = None

    @classmethod
    def read(cls, timeout: int | None, max_runtime: int | None, manual_release: bool | None) -> TimeLimits:
        """Read the limits from the fields of CreateMcpSession.

        Without any, a session lives as long as the runtime: an idle one costs next to nothing.

        Args:
            timeout: Idle seconds, or minutes if `max_runtime` is given too.
            max_runtime: Minutes in all.
            manual_release: Whether the other two are ignored.

        Raises:
            InvalidRequestError: A time is not positive.
        """
        for name, value in (("Timeout", timeout), ("MaxRuntime", max_runtime)):
            if value is not None and value <= 0:
                raise invalid_request(f"{name}: must be positive, not {value}.")
        if manual_release:
            return cls()
        unit = 1 if max_runtime is None else 60
        return cls(timeout and timeout * unit, max_runtime and max_runtime * 60)

    @classmethod
    def in_minutes(cls, **minutes: int | None) -> TimeLimits:
        """Read the limits `IdleReleaseTimeout` and `MaxRuntime` in minutes, where None is no limit.

        Raises:
            InvalidRequestError: A time is not positive.
        """
        for name, value in minutes.items():
            if value is not None and value <= 0:
                raise invalid_request(f"{name}: must be positive, not {value}.")
        idle, age = (minutes.get(name) for name in ("IdleReleaseTimeout", "MaxRuntime"))
        return cls(idle and idle * 60, age and age * 60)

    def seconds_remaining(self, *, age: float, idle: float) -> float | None:
        """Return the seconds until the session expires, or None if it never does.

        Args:
            age: Seconds since its creation.
            idle: Seconds since its last activity.
        """
        left = [
            limit - spent
            for limit, spent in ((self.max_age_seconds, age), (self.idle_seconds, idle))
            if limit is not None
        ]
        return min(left, default=None)
