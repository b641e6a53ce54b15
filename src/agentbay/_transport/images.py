"""Read the answers of the actions on images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from .._wire.images import ImageData, ImageJobData
from ..errors import (
    AgentBayError,
    APIError,
    ImageBuildError,
    InvalidRequestError,
    NotSupportedError,
    ServiceUnavailableError,
)
from ..models.image import ImageInfo

_UNKNOWN_ACTION = re.compile(r"InvalidAction\b|UnknownAction|InvalidApi|UnsupportedOperation", re.I)


def to_image(found: ImageData) -> ImageInfo:
    """Return an image as users see it."""
    return ImageInfo(**{field.name: getattr(found, field.name) for field in attrs.fields(ImageInfo)})


def job_error(job: ImageJobData) -> AgentBayError:
    """Return the error of a job that has failed."""
    kind = ServiceUnavailableError if job.code.startswith("ImagePullFailed") else InvalidRequestError
    return kind(job.message, code=job.code)


@contextmanager
def explain_missing_action(what: str, instead: str) -> Iterator[None]:
    """Raise `NotSupportedError` if the service does not know the action of the block.

    Args:
        what: What the service lacks.
        instead: What to use instead.
    """
    try:
        yield
    except APIError as error:
        if not _UNKNOWN_ACTION.search(error.code or ""):
            raise
        raise NotSupportedError(
            f"This service has no {what}.", hint=instead, request_id=error.request_id, action=error.action
        ) from error


@contextmanager
def explain_build(output: str = "") -> Iterator[None]:
    """Raise `ImageBuildError` if the block fails because of a build.

    Args:
        output: What the steps have printed.
    """
    try:
        yield
    except InvalidRequestError as error:
        if not error.code.startswith("ImageBuildFailed"):
            raise
        raise ImageBuildError(
            error.message, error.status_code, output=output, code=error.code, request_id=error.request_id
        ) from None
