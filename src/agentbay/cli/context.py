"""`agentbay context`: creates, fills, lists and deletes contexts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentbay.cli.groups import format_examples, make_group
from agentbay.cli.output import output
from agentbay.cli.shared import EndpointOption, JsonOption, open_client
from agentbay.cli.transfer import CopyLocation
from agentbay.errors import InvalidArgumentError, NotFoundError

if TYPE_CHECKING:
    from agentbay import AgentBay, Context
    from agentbay.cli.output import Progress

_EXAMPLES = format_examples(
    "agentbay context create memory",
    "agentbay context cp notes.md memory:/home/wuying/memory/notes.md",
    "agentbay session create --context memory:/home/wuying/memory",
    "agentbay context ls memory /home/wuying/memory",
)
_ABOUT = """
Contexts: named stores of files that outlive sessions.

CONTEXT is a name or an id. Paths in a context are those that its files have in a session.
"""

app = make_group(_ABOUT, _EXAMPLES)


def add_to(root: typer.Typer) -> None:
    """Add this group to the command line."""
    root.add_typer(app, name="context")


ContextArgument = Annotated[str, typer.Argument(metavar="CONTEXT", help="Its name or its id.")]


def find_context(bay: AgentBay, name: str) -> Context:
    """Find a context by its name, or else by its id.

    Raises:
        NotFoundError: If there is no such context.
    """
    result = bay.context.get(name)
    if isinstance(result.exception, NotFoundError):
        result = bay.context.get(context_id=name)
    if isinstance(result.exception, NotFoundError):
        raise NotFoundError(f"There is no context {name!r}.", hint=f"Create it with: agentbay context create {name}")
    return result.unwrap().context


@contextmanager
def _open_context(name: str, endpoint: str) -> Iterator[tuple[AgentBay, Context]]:
    with open_client(endpoint) as bay:
        context = find_context(bay, name)
        try:
            yield bay, context
        except NotFoundError as error:
            error.hint = f"To see what it holds: agentbay context ls {name}"
            raise


@app.command("list")
def list_contexts(
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Maximum number of rows.")] = 1000,
    endpoint: EndpointOption = "",
    json: JsonOption = False,
) -> None:
    """List contexts."""
    with open_client(endpoint) as bay:
        rows = [
            {"context_id": context.id, "name": context.name, "last_used": context.last_used_at}
            for context in islice(bay.context.iter_contexts(min(limit, 100)), limit)
        ]
    output.show_table(rows, "There are no contexts. Create one with: agentbay context create NAME")


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the context.")],
    endpoint: EndpointOption = "",
    json: JsonOption = False,
) -> None:
    """Create a context, or find it by its name, and print its id."""
    with open_client(endpoint) as bay:
        made = bay.context.create(name).unwrap()
    output.show({"context_id": made.context_id, "name": name}, made.context_id)


@app.command()
def ls(
    context: ContextArgument,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A folder in it.")] = "/",
    endpoint: EndpointOption = "",
    json: JsonOption = False,
) -> None:
    """List a folder of a context."""
    with _open_context(context, endpoint) as (bay, store):
        rows = [
            {
                "name": entry.file_name + ("/" if entry.is_folder else ""),
                "size": entry.size,
                "modified": entry.gmt_modified,
                "path": entry.file_path,
            }
            for entry in bay.context.iter_files(store.id, path)
        ]
    output.show_table(rows, f"{path} is empty.")


@app.command()
def cp(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A path, or CONTEXT:PATH.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A path, or CONTEXT:PATH.")],
    endpoint: EndpointOption = "",
    json: JsonOption = False,
) -> None:
    """Copy a file or a directory between this machine and a context."""
    here, there = CopyLocation.parse(source), CopyLocation.parse(target)
    if bool(here.name) == bool(there.name):
        raise InvalidArgumentError("One of SOURCE and TARGET must be CONTEXT:PATH, the other a path on this machine.")
    with _open_context(here.name or there.name, endpoint) as (bay, store):
        if there.name:
            with _show_progress(f"sending {source}", _file_size(here.local)) as progress:
                moved = bay.context.upload(
                    store.id, here.local, _target_path(there.path, here.local.name), progress=progress
                )
        else:
            place = here.local.name and there.local / here.local.name if there.local.is_dir() else there.local
            with _show_progress(f"fetching {source}", None) as progress:
                moved = bay.context.download(store.id, here.path, place, progress=progress)
    if not moved.files:
        output.note(f"There are no files in {source}.")
    output.show({"files": list(moved.files), "bytes": moved.size}, *moved.files)


@contextmanager
def _show_progress(what: str, total: int | None) -> Iterator[Progress]:
    with output.progress(what, total) as progress:
        yield progress


def _file_size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _target_path(path: str, name: str) -> str:
    return path + name if path.endswith("/") else path


@app.command()
def rm(
    what: Annotated[str, typer.Argument(metavar="CONTEXT[:PATH]", help="Context, or a file in it.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    endpoint: EndpointOption = "",
    json: JsonOption = False,
) -> None:
    """Delete a file of a context, or a whole context with its files."""
    place = CopyLocation.parse(what)
    name = place.name or what
    with _open_context(name, endpoint) as (bay, store):
        if place.name:
            bay.context.delete_file(store.id, place.path).unwrap()
        else:
            if not yes and not sys.stdin.isatty():
                raise InvalidArgumentError(
                    f"{store.name} was not deleted: without a terminal, there is no one to confirm it.",
                    hint="To delete it without confirmation: --yes",
                )
            if not yes:
                typer.confirm(f"Delete the context {store.name} and all its files?", abort=True, err=True)
            bay.context.delete(store).unwrap()
    output.show({"deleted": what}, what)
