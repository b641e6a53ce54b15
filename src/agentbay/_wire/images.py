"""Actions on the images of a local runtime."""

from __future__ import annotations

from .schema import JSON, Action, action, pascal_payload, wire_field
from .sessions import SessionConnection


@pascal_payload
class ImageData:
    """An image.

    Attributes:
        layers: How many it has.
        size: Bytes of its files.
        left_out: Devices that were not unpacked.
    """

    image_id: str = ""
    names: list[str] = wire_field(factory=list)
    digest: str = ""
    size: int = 0
    layers: int = 0
    left_out: int = 0
    created: float = 0.0
    source: str = ""
    architecture: str = ""
    env: dict[str, str] = wire_field(factory=dict)
    workdir: str = ""
    user: str = ""
    entrypoint: list[str] = wire_field(factory=list)
    command: list[str] = wire_field(factory=list)
    labels: dict[str, str] = wire_field(factory=dict)
    shell: str = ""
    python: str = ""


@pascal_payload
class ImageJobData:
    """A transfer or a build of an image, which goes on by itself.

    Attributes:
        state: running, done or failed.
        done: Bytes so far, of `total`, 0 if it is not known.
        upload_url: Where the archive is to be sent, for an import.
        code: Of the error, if it failed.
        output: What a build has printed since the byte that was asked for.
        output_end: The byte after it.
    """

    job_id: str = ""
    state: str = ""
    done: int = 0
    total: int = 0
    upload_url: str = wire_field(default="", repr=False)
    code: str = ""
    message: str = ""
    image: ImageData | None = None
    output: str = ""
    output_end: int = 0


@action("PullImage", idempotent=True)
class PullImage(Action[ImageJobData]):
    """Begin to pull an image from a registry."""

    reference: str
    name: str | None = None


@action("ImportImage")
class ImportImage(Action[ImageJobData]):
    """Ask for the URL to send an archive of an image to."""

    name: str
    source: str | None = None


@action("DescribeImageJob", idempotent=True)
class DescribeImageJob(Action[ImageJobData]):
    """Return how far a job is."""

    job_id: str
    output_from: int | None = None


@action("BuildImage")
class BuildImage(Action[ImageJobData]):
    """Ask for the URL to send the files of a build to.

    The build begins when they have come.

    Attributes:
        dockerfile: Its text.
        target: The stage that becomes the image; None is the last one.
        arguments: Values for ARG.
        policy_id: The network of its commands.
        network: The hosts that they may reach.
    """

    dockerfile: str
    name: str | None = None
    arguments: dict[str, str] | None = wire_field(codec=JSON, default=None, repr=False)
    policy_id: str | None = wire_field("McpPolicyId", default=None)
    network: list[str] | None = wire_field(codec=JSON, default=None)
    target: str | None = None


@action("CancelImageBuild", idempotent=True)
class CancelImageBuild(Action[None]):
    """End a build, and keep the steps that are done."""

    job_id: str


@action("ListImages", idempotent=True)
class ListImages(Action[list[ImageData]]):
    """List the images of the runtime."""


@action("GetImage", idempotent=True)
class GetImage(Action[ImageData]):
    """Return one image."""

    image: str


@action("RemoveImage", idempotent=True, not_found_is_success=True)
class RemoveImage(Action[ImageData]):
    """Remove a name and, with its last one, the image."""

    image: str


@action("PruneImages", idempotent=True)
class PruneImages(Action[list[ImageData]]):
    """Remove the images that have no name."""


@action("SnapshotSession")
class SnapshotSession(Action[ImageJobData]):
    """Begin to save the files of a session as an image."""

    session_id: str
    name: str


@action("ForkSession")
class ForkSession(Action[list[SessionConnection]]):
    """Create sessions with the files and the settings of another one."""

    session_id: str
    count: int
