"""Errors of actions on contexts."""

from __future__ import annotations

from agentbay.errors import (
    AuthenticationError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    ServiceUnavailableError,
)


def context_not_found(which: str) -> NotFoundError:
    return NotFoundError(f"There is no context {which:.200}.", 400, code="ContextNotFound")


def file_not_found(path: str, status: int = 400) -> NotFoundError:
    return NotFoundError(f"The context has no file {path:.200}.", status, code="ContextFileNotFound")


def name_taken(name: str) -> ConflictError:
    return ConflictError(f"Another context has the name {name:.200}.", 400, code="ContextNameAlreadyExists")


def context_is_clearing(context_id: str) -> ConflictError:
    return ConflictError(f"The context {context_id} is being cleared.", 400, code="IncorrectStatus.Context")


def path_already_bound(path: str) -> ConflictError:
    return ConflictError(f"The session has a context at {path:.200} already.", 200, code="PathAlreadyBound")


def signature_mismatch(why: str) -> AuthenticationError:
    return AuthenticationError(why, 403, code="SignatureDoesNotMatch")


def path_conflict(key: str) -> ConflictError:
    return ConflictError(
        f"A file and a directory cannot have one name: this would delete {key:.200}, which it does not know.",
        400,
        code="PathConflict",
    )


def mount_source_not_found(path: str) -> NotFoundError:
    return NotFoundError(f"The context has no folder {path:.200}.", 400, code="InvalidSourcePath.NotFound")


def mounts_not_supported() -> InvalidRequestError:
    return InvalidRequestError(
        "This runtime keeps its contexts in a bucket, where none can be mounted; synchronise it (ContextSync).",
        code="NotSupported.ContextMount",
    )


def bucket_failed(why: str) -> ServiceUnavailableError:
    return ServiceUnavailableError(f"The bucket of contexts failed: {why}.", 503, code="ContextStoreUnavailable")


def bucket_busy(context_id: str) -> ServiceUnavailableError:
    return ServiceUnavailableError(
        f"Other runtimes change {context_id} all the time.", 503, code="ContextStoreUnavailable"
    )


def bucket_damaged(context_id: str, why: str) -> ServiceUnavailableError:
    return ServiceUnavailableError(
        f"The manifest of {context_id} in the bucket cannot be read: {why}.", 503, code="ContextStoreUnavailable"
    )
