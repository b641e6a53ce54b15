"""`agentbay image`: pulls, imports, builds, lists and removes images of a local runtime."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import typer

from agentbay.cli.groups import format_examples, make_group
from agentbay.cli.output import output
from agentbay.cli.shared import EndpointOption, JsonOption, complete_image, open_client, parse_pairs
from agentbay.errors import ImageBuildError, NotFoundError

if TYPE_CHECKING:
    from agentbay import ImageInfo
    from agentbay.cli.output import Progress

_EXAMPLES = format_examples(
    "agentbay image pull registry.example/team/app:1.2",
    "agentbay image import debian.tar --name debian:12",
    "agentbay image build -t task:1 .",
    "agentbay session create --image debian:12",
    "agentbay image rm debian:12",
)
_ABOUT = """
Images: root file systems that sessions of a local runtime run.

They come from a registry, from a Dockerfile, or from a file: what docker save wrote, an OCI archive or layout, or a
root file system as an archive or a folder. IMAGE is a name, or at least 8 digits of an id.
"""
_SHORT_ID = 12  # digits of an id that a table shows

app = make_group(_ABOUT, _EXAMPLES)


def add_to(root: typer.Typer) -> None:
    """Add this group to the command line."""
    root.add_typer(app, name="image")


ImageArgument = Annotated[str, typer.Argument(metavar="IMAGE", help="A name or an id.", autocompletion=complete_image)]
NameOption = Annotated[str, typer.Option(metavar="NAME", help="Name that it gets.")]


@app.command()
def pull(
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="As registry.example/team/app:1.2.")],
    name: NameOption = "",
    endpoint: EndpointOption = "",
    json: JsonOption = False,
) -> None:
    """Pull an image from a registry, and print its name."""
    with open_client(endpoint) as bay, output.progress(f"pulling {reference}", None) as progress:
        image = bay.images.pull(reference, name=name or None, progress=_report(progress))
    output.show(_fields(image), image.name)


@app.command("import")
def import_image(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="File or folder on this machine.")],
    name: NameOption = "",
    endpoint: EndpointOption = "",
    json: JsonOption = False,
) -> None:
    """Import an image from a file or a folder, and print its name."""
    total = path.stat().st_size if path.is_file() else None
    with open_client(endpoint) as bay, output.progress(f"sending {path}", total) as progress:
        image = bay.images.import_file(path, name=name or None, progress=_report(progress))
    if image.left_out:
        output.note(f"{image.left_out} devices were left out: sessions have their own.")
    output.show(_fields(image), image.name)


@app.command()
def build(
    context: Annotated[Path, typer.Argument(metavar="CONTEXT", help="Folder that COPY takes files from.")] = Path(),
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", metavar="FILE", help="The Dockerfile.", show_default="CONTEXT/Dockerfile"),
    ] = None,
    name: Annotated[str, typer.Option("--tag", "-t", "--name", metavar="NAME", help="Name that it gets.")] = "",
    build_arg: Annotated[list[str], typer.Option(metavar="NAME=VALUE", help="Value for ARG; may be repeated.")] = [],  # noqa: B006  # typer copies it
    network: Annotated[
        list[str], typer.Option(metavar="HOST", help="Host that its commands may reach; may be repeated.")
    ] = [],  # noqa: B006
    target: Annotated[str, typer.Option(metavar="STAGE", help="The stage to build; the last one by default.")] = "",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not show what the steps print.")] = False,
    endpoint: EndpointOption = "",
    json: JsonOption = False,
) -> None:
    """Build an image from a Dockerfile, and print its name.

    Instructions: ADD, ARG, CMD, COPY, ENTRYPOINT, ENV, FROM, LABEL, RUN, SHELL, USER, WORKDIR. What was built before is
    not built again.
    """
    with open_client(endpoint) as bay:
        try:
            image = bay.images.build(
                file or context / "Dockerfile",
                context,
                name=name or None,
                build_args=parse_pairs(build_arg, "build-arg"),
                network=network or None,
                target=target or None,
                on_output=None if quiet else output.note_part,
            )
        except ImageBuildError as error:
            output.partial_result["output"] = error.output
            raise
    output.show(_fields(image), image.name)


@app.command("list")
def list_images(endpoint: EndpointOption = "", json: JsonOption = False) -> None:
    """List images."""
    with open_client(endpoint) as bay:
        found = bay.images.list()
    rows = [
        {
            "name": ", ".join(image.names) or "-",
            "id": image.image_id.removeprefix("sha256:")[:_SHORT_ID],
            "size": image.size,
            "created": datetime.fromtimestamp(image.created, UTC).isoformat(timespec="seconds"),
            "source": image.source,
        }
        for image in found
    ]
    output.show_table(rows, "There are no images. Get one with: agentbay image pull REFERENCE")


@app.command()
def inspect(image: ImageArgument, endpoint: EndpointOption = "", json: JsonOption = False) -> None:
    """Show all that is known of an image."""
    with open_client(endpoint) as bay:
        fields = _fields(_known(bay.images.get, image))
    output.show(fields, *(f"{name}: {value}" for name, value in fields.items() if value))


@app.command()
def rm(image: ImageArgument, endpoint: EndpointOption = "", json: JsonOption = False) -> None:
    """Remove a name and, with its last one, the image."""
    with open_client(endpoint) as bay:
        removed = _known(bay.images.remove, image)
    output.show({"removed": image, "image_id": removed.image_id}, image)


@app.command()
def prune(endpoint: EndpointOption = "", json: JsonOption = False) -> None:
    """Remove the images that have no name left."""
    with open_client(endpoint) as bay:
        removed = [image.image_id for image in bay.images.prune()]
    if not removed:
        output.note("Every image has a name: nothing was removed.")
    output.show({"removed": removed}, *removed)


def _report(progress: Progress) -> Any:
    return lambda done, total: progress(done)


def _known(find: Any, image: str) -> ImageInfo:
    try:
        found: ImageInfo = find(image)
    except NotFoundError as error:
        error.hint = "To list the images: agentbay image list"
        raise
    return found


def _fields(image: ImageInfo) -> dict[str, Any]:
    return attrs.asdict(image)
