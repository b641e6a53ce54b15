"""`agentbay local`: the runtime, and what this machine offers it."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, Literal

import typer

from agentbay.cli.output import output
from agentbay.cli.shared import EndpointOption, JsonOption, format_examples, make_group
from agentbay.config import Config, Settings, resolve_settings
from agentbay.errors import AuthenticationError, ConfigurationError, ConnectionFailed
from agentbay.local import options

_EXAMPLES = format_examples(
    "agentbay local                           # on a free port, with its own key",
    "agentbay local --state-dir ~/.agentbay   # its key and contexts stay",
    "agentbay local login --endpoint URL      # a link to its page, good once",
    "agentbay local doctor                    # can this machine isolate sessions?",
)
_ABOUT = """
Run isolated sessions on this machine.

It serves clients on this machine, unless --host names another way in, until it is stopped by a signal: calls under way
may finish; a second one does not wait for them.

AGENTBAY_API_KEY, if set, is the key that clients must present.
"""

app = make_group(_ABOUT, _EXAMPLES, invoke_without_command=True, no_args_is_help=False)


def _metavar_option(metavar: str, about: str, **more: Any) -> Any:
    return typer.Option(metavar=metavar, help=about, **more)


@app.callback()
def local(
    context: typer.Context,
    host: Annotated[
        str,
        _metavar_option(
            "NAME",
            "By what name or address clients reach it; other than loopback only with TLS and a key. 0.0.0.0 is every "
            "address of this machine, :: those of IPv6 too.",
        ),
    ] = "127.0.0.1",
    server_name: Annotated[
        list[str], _metavar_option("NAME", "Further name or address by which clients may come; may be repeated.")
    ] = [],  # noqa: B006  # typer copies it
    port: Annotated[int, _metavar_option("N", "Its port; 0 is any.", min=0, max=65535)] = 0,
    socket: Annotated[
        str | None, _metavar_option("PATH", "Serve on a unix socket that only you can open, and on no port.")
    ] = None,
    tls_cert: Annotated[str | None, _metavar_option("FILE", "Certificate with its chain, PEM.")] = None,
    tls_key: Annotated[str | None, _metavar_option("FILE", "The certificate's key, PEM.")] = None,
    state_dir: Annotated[
        str | None,
        _metavar_option(
            "DIR",
            "Where it keeps its files; one runtime at a time.",
            show_default="a temporary one, removed at the end",
        ),
    ] = None,
    context_store: Annotated[
        str | None,
        _metavar_option(
            "URL",
            "Bucket that keeps the files of contexts, as s3://BUCKET/PREFIX?endpoint=https://... or oss://...; "
            "credentials come from the environment.",
            show_default="the state directory",
        ),
    ] = None,
    isolation: Annotated[
        Literal["auto", "landlock", "none"],
        typer.Option(
            help="auto isolates each session or refuses to start; landlock and none are for machines that forbid "
            "namespaces, and say what they leave open."
        ),
    ] = "auto",
    network: Annotated[
        Literal["none", "proxy", "host"] | None,
        typer.Option(
            help="Of sessions that do not say: none, a proxy to what is allowed, or this machine's own.",
            show_default="proxy",
        ),
    ] = None,
    allow_host: Annotated[
        list[str],
        _metavar_option(
            "HOST[:PORT]",
            "What sessions may reach through the proxy, beside what pip, npm, apt and git of this machine are set "
            "up for. *.DOMAIN and * stand for public addresses; without a port, 80 and 443. May be repeated.",
        ),
    ] = [],  # noqa: B006  # typer copies it
    storage_host: Annotated[
        list[str],
        _metavar_option(
            "HOST[:PORT]",
            "Storage that sessions may copy from and to although its address is not public; may be repeated.",
        ),
    ] = [],  # noqa: B006  # typer copies it
    link_url: Annotated[
        Literal["on", "off"], typer.Option(help="Whether sessions offer to be called directly.")
    ] = "on",
    max_sessions: Annotated[str | None, _metavar_option("N", "Sessions at a time.", show_default="no limit")] = None,
    session_memory: Annotated[
        str | None, _metavar_option("SIZE", "Memory of a session, as 2GiB.", show_default="half of the machine's")
    ] = None,
    session_processes: Annotated[str, _metavar_option("N", "Processes and threads of a session.")] = "256",
    session_disk: Annotated[
        str | None, _metavar_option("SIZE", "Disk space of a session.", show_default="what the machine can spare")
    ] = None,
    session_cpus: Annotated[
        str | None,
        _metavar_option("N", "Processors of a session, as 0.5; needs control groups.", show_default="no limit"),
    ] = None,
    session_open_files: Annotated[str, _metavar_option("N", "Open files of each process of a session.")] = "4096",
    output_limit: Annotated[str, _metavar_option("SIZE", "Kept of each output stream of a command.")] = "64MiB",
    memory: Annotated[
        str | None, _metavar_option("SIZE", "Memory of all sessions together.", show_default="no limit")
    ] = None,
    processes: Annotated[
        str | None,
        _metavar_option(
            "N",
            "Processes of all sessions together; without control groups, each counts with all that it may have.",
            show_default="no limit",
        ),
    ] = None,
    cpus: Annotated[
        str | None,
        _metavar_option("N", "Processors of all sessions together; needs control groups.", show_default="no limit"),
    ] = None,
    drain: Annotated[str, _metavar_option("SECONDS", "For calls under way to finish when it is stopped.")] = "10",
    log_level: Annotated[Literal["debug", "info", "warning", "error"], typer.Option(help="What it logs.")] = "info",
    log_format: Annotated[
        Literal["text", "json"], typer.Option(help="Lines for people, or one JSON object a line.")
    ] = "text",
) -> int:
    if context.invoked_subcommand is not None:
        return 0
    # The start is what users wait for: the server is imported only here.
    from agentbay.local.server import run

    return run(options.Options.from_strings(context.params), os.environ.get("AGENTBAY_API_KEY", ""))


@app.command(epilog=format_examples("agentbay local login --endpoint http://127.0.0.1:8790"))
def login(endpoint: EndpointOption = "", json: JsonOption = False) -> None:
    """Print a link to the page of a runtime, which logs a browser in: once, within five minutes.

    AGENTBAY_API_KEY must hold the runtime's key; the link does not.
    """
    if not endpoint:
        raise ConfigurationError(
            "Which runtime? Say it by --endpoint or AGENTBAY_ENDPOINT.",
            hint="`agentbay local` prints it when it is ready.",
        )
    settings = resolve_settings(cfg=Config(endpoint=endpoint))
    if settings.socket_path:
        raise ConfigurationError(
            "That runtime serves on a unix socket, where no browser can open its page.",
            hint="Start it with --port in place of --socket.",
        )
    from agentbay.local.dashboard.paths import LOGIN_PATH, TICKETS_PATH

    url = f"{settings.url}{LOGIN_PATH}#{_request_ticket(settings, TICKETS_PATH)}"
    output.show({"url": url}, url)


def _request_ticket(settings: Settings, path: str) -> str:
    import httpx

    from agentbay._sync.transport import environment_proxy, ssl_context

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
            hint="`agentbay local` says at its start where it is.",
        )
    try:
        return str(answer.json()["ticket"])
    except (ValueError, TypeError, KeyError):
        raise ConfigurationError(f"{settings.url} is no local runtime: it has no page.") from None


@app.command()
def doctor(json: JsonOption = False) -> int:
    """Say whether this machine can isolate sessions, and what is missing."""
    from agentbay.local.sandbox.service.capability_probe import probe_all

    rungs = probe_all()
    usable, lack = any(rung.works and not rung.explicit_only for rung in rungs[:3]), options.missing_packages_message()
    said = [f"{'works' if rung.works else 'fails'}  {rung.name}: {rung.detail}" for rung in rungs]
    verdict = f"This machine {'can' if usable else 'cannot'} isolate sessions."
    facts = [{"name": rung.name, "works": rung.works, "detail": rung.detail} for rung in rungs]
    output.show({"usable": usable, "rungs": facts, "missing": lack}, "\n".join([*said, verdict]))
    if lack:
        print(lack, file=sys.stderr)
    return 0 if usable and not lack else 1
