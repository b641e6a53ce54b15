"""Images, which sessions run."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

# Called with the bytes so far and the bytes in all, 0 if that is not known.
ImageProgressCallback = Callable[[int, int], object]


@define(slots=False)
class ImageInfo:
    """An image in the store of a local runtime.

    Attributes:
        image_id: Digest that identifies it.
        names: Its names, each of which serves as `image_id` of a session.
        digest: Digest of its manifest in the registry; "" if it came from elsewhere.
        size: Bytes of its files.
        layers: How many layers it has.
        left_out: Devices in its layers, which were not unpacked.
        created: When it came into the store, seconds since 1970.
        source: Where it came from.
        architecture: Such as amd64.
        env: Variables of its sessions.
        workdir: Directory where commands of its sessions start; "" is /home/wuying.
        user: As the image names it; "" is root.
        entrypoint: Program that starts with its sessions, in the background.
        command: Arguments of that. Without an entry point, sessions do not start it.
        labels: Its labels.
        shell: Path of its `sh`; "" if it has none.
        python: Path of its `python3`; "" if it has none.
    """

    image_id: str
    names: list[str] = field(factory=list)
    digest: str = ""
    size: int = 0
    layers: int = 0
    left_out: int = 0
    created: float = 0.0
    source: str = ""
    architecture: str = ""
    env: dict[str, str] = field(factory=dict)
    workdir: str = ""
    user: str = ""
    entrypoint: list[str] = field(factory=list)
    command: list[str] = field(factory=list)
    labels: dict[str, str] = field(factory=dict)
    shell: str = ""
    python: str = ""

    @property
    def name(self) -> str:
        """One of its names, or else its id."""
        return self.names[0] if self.names else self.image_id

    def _repr_html_(self) -> str:
        """Return the HTML that a notebook shows."""
        from .. import _html

        known = {"name": self.name, "id": self.image_id, "size": self.size, "layers": self.layers}
        return _html.fact_table("Image", known)
