"""Errors about images: one function for each code."""

from __future__ import annotations

from agentbay.errors import InvalidRequestError, NotFoundError, ServiceUnavailableError


class ImageError(Exception):
    """An image cannot be pulled, imported or used.

    The message names the thing, the value and the way out.
    """


class DamagedImage(ImageError):
    """Data of an image is corrupt, inconsistent or malicious."""


class LimitExceeded(ImageError):
    """An image is larger than images may be."""


class PullFailed(ImageError):
    """A registry refused, or could not be reached."""


class BuildFailed(ImageError):
    """A step of a build failed, or its Dockerfile is refused."""


class Cancelled(ImageError):
    """The job was cancelled, or the runtime is shutting down."""

    def __init__(self, reason: str = "The runtime is shutting down.") -> None:
        super().__init__(reason)


def unusable_image(error: ImageError) -> InvalidRequestError | ServiceUnavailableError:
    """Return the error of the service for an image that was refused."""
    if isinstance(error, PullFailed):
        return ServiceUnavailableError(str(error), 502, code="ImagePullFailed.Local")
    codes: dict[type[ImageError], str] = {
        LimitExceeded: "ImageTooLarge.Local",
        BuildFailed: "ImageBuildFailed.Local",
    }
    return InvalidRequestError(str(error), 400, code=codes.get(type(error), "ImageInvalid.Local"))


def image_not_found(name: str, present: str) -> NotFoundError:
    """Return the error for an image that is not in the store."""
    return NotFoundError(f"There is no image {name!r:.200}. {present}", 404, code="ImageNotFound.Local")
