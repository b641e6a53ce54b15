"""Errors of the service: a function for each code that several packages use."""

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

ALL_PORTS = range(1, 65536)
PROXY_ERROR_PREFIX = "agentbay: "  # of the text with which the egress proxy answers what it cannot carry out


def not_logged_in() -> AuthenticationError:
    """Return the error for a missing or wrong key."""
    return AuthenticationError("You are not logged in or your login token has expired", code="NOT_LOGIN")


def unknown_action(name: str) -> NotFoundError:
    """Return the error for an action that the service does not have."""
    return NotFoundError(
        f"Specified api is not found, please check your url and method: {name:.80}", 404, code="InvalidAction.NotFound"
    )


def session_not_found() -> SessionNotFoundError:
    """Return the error for a session that does not exist, or no longer."""
    return SessionNotFoundError("Resource [McpSession] is not found.", code="InvalidMcpSession.NotFound")


def wrong_state(state: str, needed: str) -> ConflictError:
    """Return the error for a session in a state that forbids the call."""
    return ConflictError(f"The session is {state}; it must be {needed}.", code="IncorrectStatus.Session")


def invalid_request(message: str, code: str = "InvalidParameter") -> InvalidRequestError:
    """Return the error for a field that is malformed or out of range."""
    return InvalidRequestError(message, code=code)


def shutting_down() -> ServiceUnavailableError:
    """Return the error for a call while the runtime shuts down."""
    return ServiceUnavailableError("The local runtime is shutting down.", 503, code="ServiceUnavailable")


def request_timeout() -> InvalidRequestError:
    """Return the error for a request whose body came too slowly."""
    return InvalidRequestError("The body of the request did not arrive in time.", 408, code="RequestTimeout")


def too_many_bodies() -> ServiceUnavailableError:
    """Return the error for a large body without a key, while others arrive."""
    message = "Too many large requests arrive that have not shown the key yet."
    return ServiceUnavailableError(message, 503, code="ServiceUnavailable")


def internal_error(message: str) -> ServerError:
    """Return the error for a failure of the runtime itself."""
    return ServerError(message, 500, code="InternalError")


def storage_full(error: Exception) -> ServerError:
    """Return the error for a state directory that cannot be written."""
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ServerError(f"The state directory cannot be written: {why}.", 507, code="InsufficientStorage")


def too_many_sessions(limit: int) -> QuotaExceededError:
    """Return the error for a session beyond the limit."""
    return QuotaExceededError(
        f"The runtime has {limit} sessions, as many as it may have (--max-sessions, or --processes).",
        400,
        code="QuotaExceeded.Session",
        hint="Delete one, or give sessions an idle_release_timeout.",
    )


def invalid_port(port: object, allowed: range = ALL_PORTS) -> InvalidRequestError:
    """Return the error for a port that links cannot lead to."""
    message = f"Invalid port value: {port}. Port must be an integer in the range [{allowed[0]}, {allowed[-1]}]."
    return invalid_request(message, "InvalidPort")


def network_not_supported() -> InvalidRequestError:
    """Return the error for networks that sessions share with other machines."""
    return invalid_request(
        "The local runtime has no networks to join: only the cloud has. Its sessions reach other machines by "
        "policy_id and --allow-host.",
        "NetworkNotSupported.Local",
    )
