"""The state machine of a session, and the clock of its expiry."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from agentbay.local.api_errors import session_not_found, wrong_state
from agentbay.local.sessions.time_limits import TimeLimits


class SessionState(str, Enum):
    """The state of a session, with the values of the wire."""

    CREATING = "CREATING"
    RUNNING = "RUNNING"
    PAUSING = "PAUSING"
    PAUSED = "PAUSED"
    RESUMING = "RESUMING"
    DELETING = "DELETING"
    FINISH = "FINISH"


_ALLOWED_PREDECESSORS: dict[SessionState, frozenset[SessionState]] = {
    # PAUSING goes back to RUNNING when the pause failed, RESUMING to PAUSED when the resume failed
    SessionState.RUNNING: frozenset({SessionState.CREATING, SessionState.RESUMING, SessionState.PAUSING}),
    SessionState.PAUSING: frozenset({SessionState.RUNNING}),
    SessionState.PAUSED: frozenset({SessionState.PAUSING, SessionState.RESUMING}),
    SessionState.RESUMING: frozenset({SessionState.PAUSED}),
    SessionState.DELETING: frozenset(SessionState) - {SessionState.DELETING, SessionState.FINISH},
    SessionState.FINISH: frozenset({SessionState.DELETING}),
}


class Lifecycle:
    """State, age and idle time of one session.

    A transition has no await in it, so of two requests that race the first one wins, and the other is refused.

    Attributes:
        time_limits: When the session expires.
        state: Changed by `transition_to` only.
    """

    def __init__(self, time_limits: TimeLimits) -> None:
        self.time_limits = time_limits
        self.state = SessionState.CREATING
        self._created_at = self._last_activity = time.monotonic()
        self._paused_at: float | None = None
        self._active_operations = 0

    @property
    def is_live(self) -> bool:
        """Whether the session exists for clients, running or paused."""
        return self.state not in (SessionState.CREATING, SessionState.DELETING, SessionState.FINISH)

    def require_running(self) -> None:
        """Raise unless the session is running.

        Raises:
            ConflictError: It is paused, or on its way into or out of a pause.
            SessionNotFoundError: It has ended, or is about to.
        """
        if self.state is not SessionState.RUNNING:
            raise wrong_state(self.state.value, SessionState.RUNNING.value) if self.is_live else session_not_found()

    def transition_to(self, state: SessionState) -> None:
        """Change the state.

        Raises:
            ConflictError: The current state does not allow it.
        """
        allowed = _ALLOWED_PREDECESSORS[state]
        if self.state not in allowed:
            needed = " or ".join(sorted(possible.value for possible in allowed))
            raise wrong_state(self.state.value, needed)
        self.state = state
        self._stop_clock_while_paused()

    def touch(self) -> None:
        """Record an activity of the user, which restarts the idle time."""
        self._last_activity = time.monotonic()

    def change_time_limits(self, time_limits: TimeLimits) -> None:
        """Replace the time limits, which then count from now."""
        self.time_limits = time_limits
        self._created_at = self._paused_at or time.monotonic()
        self.touch()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Count the session as active until the end of the block."""
        self._active_operations += 1
        try:
            yield
        finally:
            self._active_operations -= 1
            self.touch()

    def seconds_until_expiry(self) -> float | None:
        """Return the seconds until the session expires, or None if it never does.

        Time spent paused counts neither as age nor as idle time.
        """
        now = time.monotonic()
        idle = 0.0 if self._active_operations or self.state is not SessionState.RUNNING else now - self._last_activity
        return self.time_limits.seconds_remaining(age=(self._paused_at or now) - self._created_at, idle=idle)

    def _stop_clock_while_paused(self) -> None:
        if self.state is SessionState.PAUSED:
            # After a resume that failed, the pause still counts from its first moment.
            self._paused_at = self._paused_at or time.monotonic()
        elif self.state is SessionState.RUNNING and self._paused_at is not None:
            self._created_at += time.monotonic() - self._paused_at
            self._paused_at = None
