"""References to images in registries, such as `registry.example:5000/team/app:1.2` or `...@sha256:...`."""

from __future__ import annotations

import re

from agentbay._lazy_attrs import define
from agentbay.local.images.errors import ImageError

_DEFAULT_TAG = "latest"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<path>{_PART}(?:/{_PART})*)(?::(?P<tag>\w[\w.-]{{0,127}}))?(?:@(?P<digest>sha256:[0-9a-f]{{64}}))?", re.ASCII
)
_HOST = re.compile(r"(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|\[[0-9a-fA-F:]+\])(?::\d{1,5})?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][\w./:@-]{0,254}", re.ASCII)


@define(frozen=True, slots=False)
class Reference:
    """An image in a registry.

    Attributes:
        host: The host of the registry, perhaps with a port.
        path: The path of the repository.
        digest: The digest of the manifest, "" if a tag names it.
    """

    host: str
    path: str
    tag: str
    digest: str

    @property
    def version(self) -> str:
        """The digest or else the tag."""
        return self.digest or self.tag

    def __str__(self) -> str:
        return f"{self.host}/{self.path}" + (f"@{self.digest}" if self.digest else f":{self.tag}")


def parse_reference(text: str, default_registry: str, mirror: str = "") -> Reference:
    """Parse a reference.

    Args:
        default_registry: A host, perhaps with a path, for references without a host; "" if there is none.
        mirror: A host, perhaps with a path, that is asked instead of the reference's own.

    Raises:
        ImageError: It is malformed, or has no host where none is the default.
    """
    host, slash, rest = text.partition("/")
    if not slash or not _looks_like_host(host):
        host, rest = "", text
    match = _REFERENCE.fullmatch(rest)
    if match is None or (host and not _HOST.fullmatch(host)):
        raise ImageError(f"{text!r:.200} names no image: it must be like registry.example/team/app:1.2.")
    path = match["path"]
    if mirror:
        host, path = _join(mirror, f"{host}/{path}" if host else path)
    elif not host:
        if not default_registry:
            raise ImageError(
                f"{text!r:.200} names no registry, and this runtime has no default one: name it, as in "
                "registry.example/team/app:1.2, or start the runtime with --image-registry HOST."
            )
        host, path = _join(default_registry, path)
    return Reference(host, path, match["tag"] or ("" if match["digest"] else _DEFAULT_TAG), match["digest"] or "")


def name_of(text: str) -> str:
    """Return the name that the image of a reference gets in the store.

    Raises:
        ImageError: It is no name.
    """
    if not _NAME.fullmatch(text):
        raise ImageError(f"{text!r:.200} is no name for an image: it must be like debian:12 or team/app:1.2.")
    if "@" in text or ":" in text.rpartition("/")[2]:
        return text
    return f"{text}:{_DEFAULT_TAG}"


def chosen_name(text: str) -> str:
    """Return the name of an image that somebody chooses.

    Raises:
        ImageError: It is no name, or has a digest, which only a registry can give.
    """
    if "@" in text:
        raise ImageError(f"{text!r:.200} names a digest, which an image from elsewhere than a registry does not have.")
    return name_of(text)


def _looks_like_host(text: str) -> bool:
    return "." in text or ":" in text or text == "localhost"


def _join(registry: str, path: str) -> tuple[str, str]:
    host, _, prefix = registry.strip("/").partition("/")
    return host, f"{prefix}/{path}" if prefix else path
