"""Which images there are here: one Linux, under whatever name clients ask for it."""

from __future__ import annotations

from agentbay.errors import InvalidRequestError
from agentbay.local.api_errors import invalid_request

DEFAULT_IMAGE = "linux_latest"
_UNSUPPORTED_PREFIXES = ("windows", "mobile", "android")


def resolve_image(image_id: str | None) -> str:
    """Return the image that a client gets.

    Raises:
        InvalidRequestError: This machine cannot offer it.
    """
    chosen = image_id or DEFAULT_IMAGE
    if chosen.lower().startswith(_UNSUPPORTED_PREFIXES):
        raise unsupported_image(chosen)
    return chosen


def unsupported_image(image_id: str) -> InvalidRequestError:
    """Say which images there are."""
    return invalid_request(
        f"The local runtime has no image {image_id!r}: its sessions are Linux. Use {DEFAULT_IMAGE}, code_latest or "
        "browser_latest, or the cloud for Windows and mobile images.",
        "ImageNotSupported.Local",
    )


def has_browser(image_id: str) -> bool:
    """Whether an image is meant for browsing, so that a link without a port makes sense."""
    return image_id.lower().startswith(("browser", "aio"))
