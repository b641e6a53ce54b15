"""What the service says no with: one function for each code that more than one room needs."""

from __future__ import annotations

from agentbay.errors import (
    AuthenticationError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    QuotaExceededError,
    ServerError,
    ServiceUnavailableError,
    SessionNotFoundError,
)


def not_logged_in() -> AuthenticationError:
    """The key is missing or wrong."""
    return AuthenticationError("You are not logged in or your login token has expired", code="NOT_LOGIN")


def unknown_action(name: str) -> NotFoundError:
    """There is no such action here."""
    return NotFoundError(
        f"Specified api is not found, please check your url and method: {name:.80}", 404, code="InvalidAction.NotFound"
    )


def session_not_found() -> SessionNotFoundError:
    """There is no such session, or no longer."""
    return SessionNotFoundError("Resource [McpSession] is not found.", code="InvalidMcpSession.NotFound")


def wrong_state(state: str, needed: str) -> ConflictError:
    """The session is in a state that forbids it."""
    return ConflictError(f"The session is {state}; it must be {needed}.", code="IncorrectStatus.Session")


def invalid_request(message: str, code: str = "InvalidParameter") -> InvalidRequestError:
    """A field is malformed or out of range."""
    return InvalidRequestError(message, code=code)


def shutting_down() -> ServiceUnavailableError:
    """The runtime is about to end."""
    return ServiceUnavailableError("The local runtime is shutting down.", 503, code="ServiceUnavailable")


def internal_error(message: str) -> ServerError:
    """The runtime failed to do what it should be able to."""
    return ServerError(message, 500, code="InternalError")


def storage_full(error: Exception) -> ServerError:
    """The disk of the state directory takes no more."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ServerError(f"The state directory cannot be written: {why}.", 507, code="InsufficientStorage")


def too_many_sessions(limit: int) -> QuotaExceededError:
    """The runtime has as many sessions as it may have."""
    return QuotaExceededError(
        f"The runtime has {limit} sessions, as many as it may have (--max-sessions, or --processes).",
        400,
        code="QuotaExceeded.Session",
        hint="Delete one, or give sessions an idle_release_timeout.",
    )
