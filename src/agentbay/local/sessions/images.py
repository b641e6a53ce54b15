"""Resolve an `image_id` to a published name or a stored image."""

from __future__ import annotations

from typing import NamedTuple

from agentbay.errors import InvalidRequestError
from agentbay.local.api_errors import invalid_request
from agentbay.local.images.errors import ImageError
from agentbay.local.images.store import Image, ImageStore

DEFAULT_IMAGE = "linux_latest"
PHONE_IMAGE = "mobile_latest"
# The cloud's names of the images that this machine can stand for: floating names, and the versions they stand for.
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


class ChosenImage(NamedTuple):
    """The image for a new session.

    Attributes:
        name: The name that the session reports.
        image: The stored image; None for the programs of this machine.
    """

    name: str
    image: Image | None


def published_image(image_id: str | None) -> ChosenImage | None:
    """Return the image that a published name stands for, or None."""
    chosen = image_id or DEFAULT_IMAGE
    return ChosenImage(chosen, None) if chosen in IMAGES else None


def resolve_image(image_id: str | None, store: ImageStore) -> ChosenImage:
    """Return the image for a new session.

    Raises:
        InvalidRequestError: There is no such image here.
    """
    if published := published_image(image_id):
        return published
    chosen = image_id or ""
    image = store.find(chosen)
    if image is None:
        raise _no_such_image(chosen, [name for known in store.images() for name in known.names])
    return ChosenImage(chosen, image)


def with_user(chosen: ChosenImage, user: str, store: ImageStore) -> ChosenImage:
    """Return an image with another user than its own.

    Raises:
        InvalidRequestError: It has no such user, or there is no image.
    """
    import attrs

    from agentbay.local.images.image_config import find_user  # late, since few sessions ask for a user

    image = chosen.image
    if image is None or image.base:
        raise invalid_request(
            f"user: only sessions on an image have users of their own; {chosen.name!r:.80} runs the programs of this "
            "machine.",
            "UserNotSupported.Local",
        )
    config = attrs.evolve(image.config, user=user)
    try:
        found = find_user(config, store.layer_paths(image.layers))
    except ImageError as error:
        raise invalid_request(f"user: {error}", "InvalidParameter.User") from error
    return ChosenImage(chosen.name, attrs.evolve(image, config=config, user=found))


def _no_such_image(image_id: str, stored: list[str]) -> InvalidRequestError:
    from difflib import get_close_matches  # few runtimes need it

    if image_id.lower().startswith(_FOREIGN_PREFIXES):
        advice = f"its sessions are Linux, or drive a phone that is plugged in ({PHONE_IMAGE}); the cloud has others"
    elif close := get_close_matches(image_id.lower(), [*stored, *IMAGES], 1):
        advice = f"did you mean {close[0]!r}?"
    else:
        advice = "fetch it with `agentbay image pull` or `agentbay image import`"
    end = "" if advice.endswith("?") else "."
    return invalid_request(
        f"The local runtime has no image {image_id!r:.80}: {advice}{end} It has {', '.join([*stored, *IMAGES])}.",
        "ImageNotSupported.Local",
    )


def has_desktop(image_id: str) -> bool:
    """Return whether an image is meant for desktops.

    Its links without a port show the desktop.
    """
    return image_id in IMAGES and image_id.startswith(("linux", "computer", "aio"))


def has_browser(image_id: str) -> bool:
    """Return whether an image is meant for browsing.

    Its links need no port.
    """
    return image_id in IMAGES and image_id.startswith(("browser", "aio"))


def has_phone(image_id: str) -> bool:
    """Return whether the sessions of an image drive a phone."""
    return image_id == PHONE_IMAGE
