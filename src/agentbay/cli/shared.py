"""What commands have in common: options, help, and the way to the service."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentbay.cli.output import output
from agentbay.errors import AgentBayError, ConfigurationError, InvalidArgumentError, SessionNotFoundError

if TYPE_CHECKING:
    from agentbay import AgentBay, Session

_COMPLETION_TIMEOUT_SECONDS = 2.0
_NO_KEY_MESSAGE = """\
There is no API key, so there is nowhere to go.
  On the cloud:     export AGENTBAY_API_KEY=...
  On this machine:  agentbay local --state-dir ~/.agentbay     # keep it running; it prints its endpoint
                    export AGENTBAY_ENDPOINT=http://127.0.0.1:PORT AGENTBAY_API_KEY=$(cat ~/.agentbay/key)
Or, for a single program on this machine:  agentbay run FILE --local"""


def format_examples(*lines: str) -> str:
    """Lay out examples for the end of a help page."""
    shown = [re.sub(r"#.*", lambda comment: f"[dim]{comment[0]}[/dim]", line) for line in lines]
    return "\n".join(["examples:", *shown])


def make_group(about: str, epilog: str = "", **more: Any) -> typer.Typer:
    """Make a group of commands; the first paragraph of `about` stands in the list of those above it too."""
    about = "\n\n".join(" ".join(paragraph.split()) for paragraph in about.split("\n\n"))
    settings = {"help_option_names": ["-h", "--help"]}
    more.setdefault("no_args_is_help", True)
    return typer.Typer(help=about, epilog=epilog, context_settings=settings, rich_markup_mode="rich", **more)


# ── Where to ────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def open_client(endpoint: str) -> Iterator[AgentBay]:
    """Make a client of the service that options and environment name.

    Raises:
        ConfigurationError: There is no key.
    """
    if not os.environ.get("AGENTBAY_API_KEY"):
        raise ConfigurationError(_NO_KEY_MESSAGE)
    if endpoint:  # said in the environment, since `config` reads everything else there too
        os.environ["AGENTBAY_ENDPOINT"] = endpoint
        os.environ.pop("AGENTBAY_REGION_ID", None)
    from agentbay import AgentBay

    with AgentBay() as bay:
        yield bay


@contextmanager
def open_session(session_id: str, endpoint: str) -> Iterator[Session]:
    """Find a session by its id."""
    with open_client(endpoint) as bay:
        yield get_session(bay, session_id)


def get_session(bay: AgentBay, session_id: str) -> Session:
    """Find a session by its id.

    Raises:
        SessionNotFoundError: There is none.
    """
    try:
        session = bay.get(session_id).unwrap().session
    except SessionNotFoundError as error:
        error.hint = "To see which there are: agentbay session list"
        raise
    assert session is not None
    return session


def parse_pairs(given: list[str], what: str) -> dict[str, str]:
    """Read options of the form NAME=VALUE.

    Raises:
        InvalidArgumentError: One has another form.
    """
    parted = [item.partition("=") for item in given]
    for name, sign, _ in parted:
        if not name or not sign:
            raise InvalidArgumentError(f"{what} must be NAME=VALUE, not {name + sign!r}.")
    return {name: value for name, _, value in parted}


def complete_session(incomplete: str) -> list[str]:
    """The ids of sessions that begin so; a shell that asks in vain is told nothing."""
    from agentbay import AgentBay

    try:
        with AgentBay(timeout=_COMPLETION_TIMEOUT_SECONDS, max_retries=0) as bay:
            listed = bay.list(limit=100).session_ids
    except AgentBayError:
        return []
    return [item["sessionId"] for item in listed if item["sessionId"].startswith(incomplete)]


# ── Options ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _enable_json(chosen: bool) -> bool:
    output.json = output.json or chosen
    return chosen


def _option(*names: str, about: str, **more: Any) -> Any:
    return typer.Option(*names, help=about, **more)


def _check_positive(seconds: float | None) -> float | None:
    if seconds is not None and seconds <= 0:
        raise typer.BadParameter("must be more than 0")
    return seconds


JsonOption = Annotated[bool, _option("--json", about="Print JSON, errors too.", callback=_enable_json, is_eager=True)]
EndpointOption = Annotated[
    str,
    _option(
        "--endpoint",
        metavar="URL",
        envvar="AGENTBAY_ENDPOINT",
        about="Where the service is: the cloud, unless said otherwise.",
    ),
]
SessionArgument = Annotated[
    str, typer.Argument(metavar="SESSION", help="The session's id.", autocompletion=complete_session)
]
LabelOption = Annotated[list[str], _option("--label", "-l", metavar="NAME=VALUE", about="A label; may be repeated.")]
EnvOption = Annotated[
    list[str], _option("--env", "-e", metavar="NAME=VALUE", about="An environment variable; may be repeated.")
]
CwdOption = Annotated[str, _option("--cwd", metavar="DIR", about="Where to run it; the session's home by default.")]
TimeoutOption = Annotated[
    float | None,
    _option("--timeout", metavar="SECONDS", about="Kill it after so long.", callback=_check_positive),
]
