"""`agentbay session`: creates, lists, pauses and deletes sessions."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentbay.cli.groups import format_examples, make_group
from agentbay.cli.output import output
from agentbay.cli.shared import (
    EndpointOption,
    ImageOption,
    JsonOption,
    LabelOption,
    SessionArgument,
    complete_session,
    get_session,
    open_client,
    open_session,
    parse_pairs,
)
from agentbay.errors import AgentBayError, InvalidArgumentError

if TYPE_CHECKING:
    from agentbay import AgentBay, ContextSync, LifecyclePolicy

_EXAMPLES = format_examples(
    "ID=$(agentbay session create --label job=nightly)",
    "agentbay session exec $ID -- python3 -c 'print(1)'",
    "agentbay session cp data.csv $ID:data.csv",
    "agentbay session list --label job=nightly --json",
    "agentbay session delete $ID",
)

FURTHER_COMMANDS = {
    "exec": ("command", "Run a command in a session, show its output, and return its exit status."),
    "logs": ("command", "Show the output of a job that `exec --detach` started."),
    "cp": ("command", "Copy a file or a directory between this machine and a session."),
    "attach": ("attach", "Open a terminal in a session, and return the exit status of its program."),
}

app = make_group("Sessions: isolated machines that run commands and hold files.", _EXAMPLES, FURTHER_COMMANDS)


def add_to(root: typer.Typer) -> None:
    """Add this group to the command line."""
    root.add_typer(app, name="session")


SessionsArgument = Annotated[
    list[str], typer.Argument(metavar="SESSION", help="Ids of sessions.", autocompletion=complete_session)
]
WaitOption = Annotated[int, typer.Option("--timeout", metavar="SECONDS", min=1, help="How long to wait.")]


@app.command(epilog=format_examples("ID=$(agentbay session create --image code_latest --max-runtime 120)"))
def create(
    image: ImageOption = "",
    label: LabelOption = [],  # noqa: B006  # typer copies it
    idle: Annotated[
        int | None, typer.Option(metavar="MINUTES", min=1, help="End it after this time without activity.")
    ] = None,
    max_runtime: Annotated[int | None, typer.Option(metavar="MINUTES", min=1, help="End it after this time.")] = None,
    context: Annotated[
        list[str],
        typer.Option(metavar="CONTEXT:PATH", help="Copy a context to PATH now, and back at the end; may be repeated."),
    ] = [],  # noqa: B006
    endpoint: EndpointOption = "",
    json: JsonOption = False,
) -> None:
    """Create a session and print its id."""
    from agentbay import CreateSessionParams

    with open_client(endpoint) as bay:
        with output.show_busy("creating a session"):
            params = CreateSessionParams(
                labels=parse_pairs(label, "--label"),
                image_id=image or None,
                lifecycle_policy=_lifecycle(idle, max_runtime),
                context_syncs=[_parse_context_sync(bay, item) for item in context],
            )
            result = bay.create(params)
        if result.session is not None:  # printed even if a context failed: the session exists and has to be deleted
            fields = {"session_id": result.session.session_id, "image_id": result.session.image_id}
            output.show(fields, result.session.session_id)
        result.unwrap()


def _lifecycle(idle: int | None, max_runtime: int | None) -> LifecyclePolicy | None:
    from agentbay import LifecyclePolicy

    return None if idle is None and max_runtime is None else LifecyclePolicy(idle, max_runtime)


def _parse_context_sync(bay: AgentBay, item: str) -> ContextSync:
    from agentbay import ContextSync, SyncPolicy
    from agentbay.cli.context import find_context

    name, _, path = item.partition(":")
    if not name or not path.startswith("/"):
        raise InvalidArgumentError(f"--context must be CONTEXT:/absolute/path, not {item!r}.")
    return ContextSync(find_context(bay, name).id, path, SyncPolicy())


@app.command("list")
def list_sessions(
    label: LabelOption = [],  # noqa: B006
    status: Annotated[str, typer.Option(metavar="STATUS", help="Only sessions in this state, such as RUNNING.")] = "",
    image: Annotated[str, typer.Option(metavar="IMAGE", help="Only sessions of this image.")] = "",
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Maximum number of rows.")] = 1000,
    endpoint: EndpointOption = "",
    json: JsonOption = False,
) -> None:
    """List the sessions that have not ended."""
    with open_client(endpoint) as bay:
        listed = bay.iter_sessions(
            parse_pairs(label, "--label") or None, min(limit, 100), status or None, image or None
        )
        rows = [
            {"session_id": item["sessionId"], "status": item["sessionStatus"], "image_id": item["imageId"]}
            for item in islice(listed, limit)
        ]
    output.show_table(rows, "There are no sessions. Make one with: agentbay session create")


@app.command()
def get(session: SessionArgument, endpoint: EndpointOption = "", json: JsonOption = False) -> None:
    """Print the state, labels and contexts of a session."""
    with open_client(endpoint) as bay:
        handle = get_session(bay, session)
        data = bay.get_session(session).unwrap().data
        fields: dict[str, Any] = {
            "session_id": data.session_id or session,
            "status": data.status or handle.get_status().unwrap().status,
            "labels": handle.get_labels().unwrap().data,
            "app_instance_id": data.app_instance_id,
            "contexts": data.contexts,
        }
    output.show_fields(fields)


@app.command()
def delete(
    session: SessionsArgument,
    sync: Annotated[bool, typer.Option("--sync", help="Copy their contexts back first.")] = False,
    endpoint: EndpointOption = "",
    json: JsonOption = False,
) -> int:
    """Delete sessions and everything in them.

    It tries all of them, and returns status 1 if one could not be deleted.
    """
    failed = 0
    with open_client(endpoint) as bay:
        for name in session:
            try:
                with output.show_busy(f"deleting {name}"):
                    get_session(bay, name).delete(sync).unwrap()
            except AgentBayError as error:
                output.error(error)
                failed += 1
            else:
                output.show({"deleted": name}, name)
    return 1 if failed else 0


@app.command()
def pause(
    session: SessionArgument, timeout: WaitOption = 600, endpoint: EndpointOption = "", json: JsonOption = False
) -> None:
    """Pause a session, and wait until all its processes are frozen."""
    with open_session(session, endpoint) as handle, output.show_busy("pausing"):
        result = handle.pause(timeout).unwrap()
    output.show({"session_id": session, "status": result.status}, *([result.status] if result.status else []))


@app.command()
def resume(
    session: SessionArgument, timeout: WaitOption = 600, endpoint: EndpointOption = "", json: JsonOption = False
) -> None:
    """Resume a paused session, and wait until it runs again."""
    with open_session(session, endpoint) as handle, output.show_busy("resuming"):
        result = handle.resume(timeout).unwrap()
    output.show({"session_id": session, "status": result.status}, *([result.status] if result.status else []))


@app.command(
    epilog=format_examples(
        "agentbay session exec ID --detach -- python3 -m http.server 30100",
        "curl $(agentbay session url ID --port 30100)",
    )
)
def url(
    session: SessionArgument,
    port: Annotated[
        int | None, typer.Option(metavar="N", help="Port of a server in the session; in the cloud 30100 to 30199.")
    ] = None,
    websocket: Annotated[bool, typer.Option("--websocket", help="Print a wss link instead of https.")] = False,
    endpoint: EndpointOption = "",
    json: JsonOption = False,
) -> None:
    """Print the URL of a session's dashboard, or of a server in it.

    Everyone who has the URL can use it.
    """
    with open_session(session, endpoint) as handle:
        if port is None and not websocket:
            made = handle.info().unwrap().data.resource_url or handle.resource_url
        else:
            made = handle.get_link("wss" if websocket else "https", port).unwrap().data
    output.show({"url": made}, made)
