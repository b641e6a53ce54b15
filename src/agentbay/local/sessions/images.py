"""The images: one Linux, by every name that clients use for it."""

from __future__ import annotations

from agentbay.errors import InvalidRequestError
from agentbay.local.api_errors import invalid_request

DEFAULT_IMAGE = "linux_latest"
_UNSUPPORTED_PREFIXES = ("windows", "mobile", "android")


def resolve_image(image_id: str | None) -> str:
    """Return the image for a new session.

    Raises:
        InvalidRequestError: The image is for another system.
    """
    chosen = image_id or DEFAULT_IMAGE
    if chosen.lower().startswith(_UNSUPPORTED_PREFIXES):
        raise unsupported_image(chosen)
    return chosen


def unsupported_image(image_id: str) -> InvalidRequestError:
    """Return the error for an image of another system."""
    return invalid_request(
        f"The local runtime has no image {image_id!r}: its sessions are Linux. Use {DEFAULT_IMAGE}, code_latest or "
        "browser_latest, or the cloud for Windows and mobile images.",
        "ImageNotSupported.Local",
    )


def has_browser(image_id: str) -> bool:
    """Return whether an image is meant for browsing.

    Its links need no port.
    """
    return image_id.lower().startswith(("browser", "aio"))
