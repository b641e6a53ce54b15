"""Options and clients that the commands share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from agentbay._profiles import ProfileFile
from agentbay.cli.output import output
from agentbay.config import PROFILE_VARIABLE, redact_url
from agentbay.errors import AgentBayError, ConfigurationError, InvalidArgumentError, SessionNotFoundError

if TYPE_CHECKING:
    from agentbay import AgentBay, CreateSessionParams, Session

_COMPLETION_TIMEOUT_SECONDS = 2.0
_NO_KEY_MESSAGE = """\
There is no API key.
  On the cloud:     agentbay login      # or: export AGENTBAY_API_KEY=...
  On this machine:  agentbay local --state-dir ~/.agentbay     # keep it running; it prints its endpoint
                    export AGENTBAY_ENDPOINT=http://127.0.0.1:PORT AGENTBAY_API_KEY=$(cat ~/.agentbay/key)
Or, for a single program on this machine:  agentbay run FILE --local"""


class WrapperCommand(TyperCommand):
    """A command that runs another command, and refuses options that may be either's."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse options of this command between the words of the other one."""
        takes_value = {name: not getattr(option, "is_flag", True) for option in self.params for name in option.opts}
        words, stray, remaining = 0, "", iter(args)
        for argument in remaining:
            name, has_value, _ = argument.partition("=")
            if argument == "--":
                break
            if name in takes_value and name.startswith("-"):
                stray = name if words > 1 else ""  # the first word is the session or the script
                if takes_value[name] and not has_value:
                    next(remaining, None)
            elif stray:
                message = "an option of agentbay within the command; if it belongs to the command, put -- before that."
                raise typer.BadParameter(message, ctx, param_hint=stray)
            else:
                words += 1
        return super().parse_args(ctx, args)


@contextmanager
def open_client(endpoint: str) -> Iterator[AgentBay]:
    """Create a client of the service that the options and the environment choose.

    Raises:
        ConfigurationError: If there is no key.
    """
    if not os.environ.get("AGENTBAY_API_KEY"):
        choose_profile(endpoint)
    elif endpoint:  # set in the environment, from which `config` reads the other settings
        os.environ["AGENTBAY_ENDPOINT"] = endpoint
        # A region would go before the endpoint.
        os.environ.pop("AGENTBAY_REGION_ID", None)
    from agentbay import AgentBay

    with AgentBay() as bay:
        yield bay


def use_profile(name: str) -> None:
    """Let all clients of this process use a profile, whatever else the environment says."""
    ProfileFile().get(name)
    os.environ[PROFILE_VARIABLE] = name
    for variable in ("AGENTBAY_API_KEY", "AGENTBAY_ENDPOINT", "AGENTBAY_REGION_ID"):
        os.environ.pop(variable, None)


def choose_profile(endpoint: str) -> None:
    """Use the profile that AGENTBAY_PROFILE names, or the current one.

    Args:
        endpoint: The endpoint that an option or the environment asks for, or "".

    Raises:
        ConfigurationError: There is no profile, or it is for another endpoint.
    """
    name = os.environ.get(PROFILE_VARIABLE) or ProfileFile().current()
    if not name:
        raise ConfigurationError(_NO_KEY_MESSAGE)
    # A key must not go to another service than its own.
    if endpoint and endpoint != ProfileFile().get(name).endpoint:
        raise ConfigurationError(
            f"The endpoint {redact_url(endpoint)!r:.200} is not that of the profile {name!r} and its key.",
            hint="Set AGENTBAY_API_KEY for that endpoint, or leave out --endpoint and AGENTBAY_ENDPOINT.",
        )
    os.environ[PROFILE_VARIABLE] = name


@contextmanager
def open_service(endpoint: str, *, local: bool) -> Iterator[AgentBay]:
    """Create a client of the chosen service, or of a private runtime."""
    if not local:
        with open_client(endpoint) as bay:
            yield bay
        return
    from agentbay import AgentBay

    with AgentBay.local() as bay:
        yield bay


def check_keep(*, keep: bool, local: bool) -> None:
    """Refuse to keep a session of a private runtime.

    Raises:
        InvalidArgumentError: Says why.
    """
    if local and keep:
        raise InvalidArgumentError(
            "--keep needs a service that stays, and the runtime of --local ends with this command."
        )


@contextmanager
def new_session(bay: AgentBay, params: CreateSessionParams, *, keep: bool) -> Iterator[Session]:
    """Create a session for a block, and print its id if it is kept."""
    if not keep:
        with bay.session(params) as session:
            yield session
        return
    session = bay.create(params).unwrap().session
    output.note(f"session {session.session_id}")
    yield session


@contextmanager
def open_session(session_id: str, endpoint: str) -> Iterator[Session]:
    """Open a client, and find a session by its id."""
    with open_client(endpoint) as bay:
        yield get_session(bay, session_id)


def get_session(bay: AgentBay, session_id: str) -> Session:
    """Find a session by its id.

    Raises:
        SessionNotFoundError: If there is no such session.
    """
    try:
        return bay.get(session_id).unwrap().session
    except SessionNotFoundError as error:
        error.hint = "To list the sessions: agentbay session list"
        raise


def parse_pairs(given: list[str], what: str) -> dict[str, str]:
    """Parse options of the form NAME=VALUE.

    Raises:
        InvalidArgumentError: If one has another form.
    """
    parted = [item.partition("=") for item in given]
    for name, sign, _ in parted:
        if not name or not sign:
            raise InvalidArgumentError(
                f"{what} must be NAME=VALUE, not {name + sign!r}.",
                hint=f"If {what} belongs to the command that you run, put -- before that command.",
            )
    return {name: value for name, _, value in parted}


def complete_session(incomplete: str) -> list[str]:
    """Return the ids of sessions that start with a prefix, for shell completion.

    Errors return no ids, since a shell cannot show them.
    """
    try:
        with _completion_client() as bay:
            listed = bay.list(limit=100).session_ids
    except AgentBayError:
        return []
    return [item["sessionId"] for item in listed if item["sessionId"].startswith(incomplete)]


def complete_image(incomplete: str) -> list[str]:
    """Return the names of images that start with a prefix, for shell completion.

    Errors return no names, since a shell cannot show them.
    """
    try:
        with _completion_client() as bay:
            names = [name for image in bay.images.list() for name in image.names]
    except AgentBayError:
        return []
    return [name for name in names if name.startswith(incomplete)]


@contextmanager
def _completion_client() -> Iterator[AgentBay]:
    """Create a client of the service that the environment or a profile chooses."""
    from agentbay import AgentBay

    if not os.environ.get("AGENTBAY_API_KEY"):
        choose_profile(os.environ.get("AGENTBAY_ENDPOINT", ""))
    with AgentBay(timeout=_COMPLETION_TIMEOUT_SECONDS, max_retries=0) as bay:
        yield bay


def _option(*names: str, about: str, **more: Any) -> Any:
    return typer.Option(*names, help=about, **more)


def _check_positive(seconds: float | None) -> float | None:
    if seconds is not None and seconds <= 0:
        raise typer.BadParameter("must be more than 0")
    return seconds


JsonOption = Annotated[bool, _option("--json", about="Print results and errors as JSON.")]
EndpointOption = Annotated[
    str,
    _option(
        "--endpoint",
        metavar="URL",
        envvar="AGENTBAY_ENDPOINT",
        about="URL of the service; that of the profile or the cloud by default.",
    ),
]
SessionArgument = Annotated[
    str, typer.Argument(metavar="SESSION", help="Id of the session.", autocompletion=complete_session)
]
ImageOption = Annotated[
    str,
    typer.Option(metavar="IMAGE", help="Image to run; linux_latest by default.", autocompletion=complete_image),
]
LabelOption = Annotated[list[str], _option("--label", "-l", metavar="NAME=VALUE", about="Label; may be repeated.")]
EnvOption = Annotated[
    list[str], _option("--env", "-e", metavar="NAME=VALUE", about="Environment variable; may be repeated.")
]
CwdOption = Annotated[str, _option("--cwd", metavar="DIR", about="Working directory; the session's home by default.")]
TimeoutOption = Annotated[
    float | None,
    _option("--timeout", metavar="SECONDS", about="Kill the command after this time.", callback=_check_positive),
]
