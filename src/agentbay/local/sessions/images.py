"""The images: one Linux, by every published name of a Linux image."""

from __future__ import annotations

from difflib import get_close_matches

from agentbay.errors import InvalidRequestError
from agentbay.local.api_errors import invalid_request

DEFAULT_IMAGE = "linux_latest"
PHONE_IMAGE = "mobile_latest"
# The names of the service for what this Linux can do: names that float, and the versions they mean.
IMAGES = (
    DEFAULT_IMAGE,
    "code_latest",
    "browser_latest",
    "computer-use-ubuntu-2204",
    "computer-use-ubuntu-2204-regionGW",
    "code-space-debian-12",
    "code-space-debian-12-enhanced",
    "browser-use-debian-12",
    "aio-ubuntu-2404",
    PHONE_IMAGE,
)
_FOREIGN_PREFIXES = ("windows", "mobile", "android")


def resolve_image(image_id: str | None) -> str:
    """Return the image for a new session.

    Raises:
        InvalidRequestError: There is no such image here.
    """
    chosen = image_id or DEFAULT_IMAGE
    if chosen not in IMAGES:
        raise _no_such_image(chosen)
    return chosen


def _no_such_image(image_id: str) -> InvalidRequestError:
    if image_id.lower().startswith(_FOREIGN_PREFIXES):
        advice = f"its sessions are Linux, or drive a phone that is plugged in ({PHONE_IMAGE}); the cloud has others"
    elif close := get_close_matches(image_id.lower(), IMAGES, 1):
        advice = f"did you mean {close[0]!r}?"
    else:
        advice = "images of your own are in the cloud only"
    end = "" if advice.endswith("?") else "."
    return invalid_request(
        f"The local runtime has no image {image_id!r:.80}: {advice}{end} It has {', '.join(IMAGES)}.",
        "ImageNotSupported.Local",
    )


def has_desktop(image_id: str) -> bool:
    """Return whether an image is meant for desktops.

    Its links without a port show the desktop.
    """
    return image_id.lower().startswith(("linux", "computer", "aio"))


def has_browser(image_id: str) -> bool:
    """Return whether an image is meant for browsing.

    Its links need no port.
    """
    return image_id.startswith(("browser", "aio"))


def has_phone(image_id: str) -> bool:
    """Return whether the sessions of an image drive a phone."""
    return image_id == PHONE_IMAGE
