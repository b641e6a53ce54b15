"""What actions on contexts are refused with."""

from __future__ import annotations

from agentbay.errors import (
    AuthenticationError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    ServiceUnavailableError,
)


def context_not_found(which: str) -> NotFoundError:
    """There is no such context."""
    return NotFoundError(f"There is no context {which:.200}.", 400, code="ContextNotFound")


def file_not_found(path: str, status: int = 400) -> NotFoundError:
    """The context has no such file."""
    return NotFoundError(f"The context has no file {path:.200}.", status, code="ContextFileNotFound")


def name_taken(name: str) -> ConflictError:
    """Another context has the name."""
    return ConflictError(f"Another context has the name {name:.200}.", 400, code="ContextNameAlreadyExists")


def context_is_clearing(context_id: str) -> ConflictError:
    """The context is being cleared."""
    return ConflictError(f"The context {context_id} is being cleared.", 400, code="IncorrectStatus.Context")


def path_already_bound(path: str) -> ConflictError:
    """The session has a context at that path."""
    return ConflictError(f"The session has a context at {path:.200} already.", 200, code="PathAlreadyBound")


def signature_mismatch(why: str) -> AuthenticationError:
    """A presigned URL is not one of ours, or not for this, or not any more."""
    return AuthenticationError(why, 403, code="SignatureDoesNotMatch")


def mount_source_not_found(path: str) -> NotFoundError:
    """What is to be mounted is not there."""
    return NotFoundError(f"The context has no folder {path:.200}.", 400, code="InvalidSourcePath.NotFound")


def mounts_not_supported() -> InvalidRequestError:
    """A bucket has no directories to show."""
    return InvalidRequestError(
        "This runtime keeps its contexts in a bucket, where none can be mounted; synchronise it (ContextSync).",
        code="NotSupported.ContextMount",
    )


def bucket_failed(why: str) -> ServiceUnavailableError:
    """The bucket did not do what it was asked to."""
    return ServiceUnavailableError(f"The bucket of contexts failed: {why}.", 503, code="ContextStoreUnavailable")


def bucket_busy(context_id: str) -> ServiceUnavailableError:
    """Other runtimes change the context all the time."""
    return ServiceUnavailableError(
        f"Other runtimes change {context_id} all the time.", 503, code="ContextStoreUnavailable"
    )


def bucket_damaged(context_id: str, why: str) -> ServiceUnavailableError:
    """A manifest cannot be read."""
    return ServiceUnavailableError(
        f"The manifest of {context_id} in the bucket cannot be read: {why}.", 503, code="ContextStoreUnavailable"
    )
