"""`agentbay local`: runs the local runtime, and checks what this machine offers it."""

from __future__ import annotations

import asyncio
import inspect
import os
from dataclasses import Field, fields
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from agentbay._installation import find_mixture
from agentbay.cli.groups import format_examples, make_group
from agentbay.cli.output import output
from agentbay.cli.shared import EndpointOption, JsonOption
from agentbay.config import Config, Settings, resolve_settings
from agentbay.errors import AuthenticationError, ConfigurationError, ConnectionFailed
from agentbay.local import options

_EXAMPLES = format_examples(
    "agentbay local                           # on a free port, with a new key",
    "agentbay local --state-dir ~/.agentbay   # keeps its key and contexts",
    "agentbay local login --endpoint URL      # a link to its dashboard, valid once",
    "agentbay local doctor                    # can this machine isolate sessions?",
)
_ABOUT = """
Run isolated sessions on this machine.

It serves clients on this machine, or on another address with --host, until a signal stops it. Calls under way may
then finish; a second signal ends them.

AGENTBAY_API_KEY, if set, is the key that clients must present.
"""

app = make_group(_ABOUT, _EXAMPLES, invoke_without_command=True, no_args_is_help=False)


def add_to(root: typer.Typer) -> None:
    """Add this group to the command line."""
    root.add_typer(app, name="local")


def local(context: typer.Context, **given: Any) -> int:
    if context.invoked_subcommand is not None:
        return 0
    # The server is imported only here, to keep --help and the other commands fast.
    from agentbay.local.server import run

    return run(options.Options(**given), os.environ.get("AGENTBAY_API_KEY", ""))


def _make_signature() -> inspect.Signature:
    """Return a signature with the fields of `Options`, which Typer makes options of."""
    hints = get_type_hints(options.Options, include_extras=True)
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    return inspect.Signature(
        [context, *(_make_parameter(option, hints[option.name]) for option in fields(options.Options))]
    )


def _make_parameter(option: Field[Any], hint: Any) -> inspect.Parameter:
    """Return the parameter for one field of `Options`."""

    def parse(value: Any) -> Any:
        try:
            return options.parse_value(hint, value)
        except ValueError as error:
            raise typer.BadParameter(f"{error}.") from error

    choices = [part for part in (hint, *get_args(hint)) if get_origin(part) is Literal]
    kind = choices[0] if choices else str
    about, default = dict(option.metadata), option.default
    if isinstance(default, tuple):
        kind, default = list[str], []
    elif default is None:
        kind = kind | None
    else:  # shown as it is typed: 64MiB, not 67108864
        default, about["show_default"] = about["show_default"] or str(default), True
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, typer.Option(**about, callback=parse)],
    )


local.__signature__ = _make_signature()  # type: ignore[attr-defined]
app.callback()(local)


@app.command(epilog=format_examples("agentbay local login --endpoint http://127.0.0.1:8790"))
def login(endpoint: EndpointOption = "", json: JsonOption = False) -> None:
    """Print a link to the dashboard of a runtime, which logs a browser in.

    It works once, within five minutes. AGENTBAY_API_KEY must be the key of the runtime; the link does not contain it.
    """
    if not endpoint:
        raise ConfigurationError(
            "Which runtime? Give --endpoint or AGENTBAY_ENDPOINT.",
            hint="`agentbay local` prints it when it is ready.",
        )
    if not os.environ.get("AGENTBAY_API_KEY"):
        raise ConfigurationError(
            "AGENTBAY_API_KEY must hold the key of that runtime.",
            hint="If you did not choose it, `agentbay local` printed its file at the start: "
            "export AGENTBAY_API_KEY=$(cat FILE)",
        )
    settings = resolve_settings(cfg=Config(endpoint=endpoint))
    if settings.socket_path:
        raise ConfigurationError(
            "That runtime serves on a unix socket, where no browser can open its dashboard.",
            hint="Start it with --port instead of --socket.",
        )
    from agentbay.local.dashboard.paths import LOGIN_PATH, TICKETS_PATH

    url = f"{settings.url}{LOGIN_PATH}#{_request_ticket(settings, TICKETS_PATH)}"
    output.show({"url": url}, url)


def _request_ticket(settings: Settings, path: str) -> str:
    import httpx

    from agentbay._sync.router import environment_proxy, ssl_context

    target = httpx.URL(settings.url + path)
    proxy = environment_proxy(target.scheme, target.host)
    try:
        with httpx.Client(proxy=proxy, trust_env=False, verify=ssl_context(True), timeout=settings.timeout) as http:
            answer = http.post(target, headers={"authorization": f"Bearer {settings.api_key}"})
    except httpx.HTTPError as error:
        raise ConnectionFailed(f"{settings.url} does not answer: {error}") from error
    if answer.status_code == 401:
        raise AuthenticationError(
            "AGENTBAY_API_KEY is not the key of that runtime.",
            401,
            hint="`agentbay local` prints the path of its key file when it starts.",
        )
    try:
        return str(answer.json()["ticket"])
    except (ValueError, TypeError, KeyError):
        raise ConfigurationError(f"{settings.url} is no local runtime: it has no dashboard.") from None


@app.command()
def doctor(json: JsonOption = False) -> int:
    """Check whether this machine can isolate sessions, and print what is missing."""
    from agentbay.local.browser.engines import INSTALL_HINT, find_engine
    from agentbay.local.desktop.programs import VIEWER_INSTALL_HINT, find_viewer, missing_message as missing_of_desktop
    from agentbay.local.sandbox.service.capability_probe import probe_all

    probes, engine = probe_all(), find_engine()
    usable = any(probe.works and not probe.explicit_only for probe in probes[:3])
    missing = options.missing_packages_message()
    lines = [f"{'works' if probe.works else 'fails'}  {probe.name}: {probe.detail}" for probe in probes]
    browser = engine.path if engine else f"none that sessions can see; to have one: {INSTALL_HINT}"
    lines.append(f"{'works' if engine else 'fails'}  browser: {browser}")
    no_desktop = missing_of_desktop()
    view = "a live view too" if find_viewer() else f"without a live view; to have one: {VIEWER_INSTALL_HINT}"
    lines.append(f"fails  desktop: {no_desktop}" if no_desktop else f"works  desktop: {view}")
    phone, about_phone = _look_for_phone()
    lines.append(f"{'works' if phone else 'fails'}  phone: {about_phone}")
    verdict = f"This machine {'can' if usable else 'cannot'} isolate sessions."
    rungs = [{"name": probe.name, "works": probe.works, "detail": probe.detail} for probe in probes]
    output.show(
        {
            "usable": usable,
            "rungs": rungs,
            "missing": missing,
            "browser": engine and engine.path,
            "desktop": not no_desktop,
            "phone": phone,
        },
        *lines,
        verdict,
    )
    for note in (missing, find_mixture()):
        if note:
            output.note(note)
    return 0 if usable and not missing else 1


def _look_for_phone() -> tuple[str | None, str]:
    """Return the serial number of the phone, if any, and a line about it."""
    from agentbay.local.phone.adb import PhoneFailed, find_phone

    try:
        serial = asyncio.run(find_phone()).serial
    except PhoneFailed as failure:
        return None, str(failure)
    return serial, serial
