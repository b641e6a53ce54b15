"""`agentbay login`, `logout` and `profile`: keys that commands use without a variable."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from agentbay._profiles import DEFAULT_PROFILE, Profile, ProfileFile
from agentbay.cli.groups import format_examples, make_group
from agentbay.cli.output import output
from agentbay.cli.shared import EndpointOption, JsonOption
from agentbay.config import PROFILE_VARIABLE, Config, resolve_settings
from agentbay.errors import InvalidArgumentError

_EXAMPLES = format_examples(
    "agentbay login                                  # asks for the key, which is not shown",
    "agentbay login work --region us-east-1",
    "agentbay login mine --endpoint http://127.0.0.1:8080 < ~/.agentbay/key",
    "agentbay --profile work session list",
)

app = make_group("Profiles: keys with their services, which commands use.")


def complete_profile(incomplete: str) -> list[str]:
    """Return the names of profiles that start with a prefix, for shell completion."""
    try:
        return [name for name in ProfileFile().load() if name.startswith(incomplete)]
    except ValueError:  # a shell cannot show what is wrong
        return []


ProfileArgument = Annotated[
    str, typer.Argument(metavar="PROFILE", help="Name of the profile.", autocompletion=complete_profile)
]


def add_to(root: typer.Typer) -> None:
    """Add these commands to the command line."""
    root.command(epilog=_EXAMPLES)(login)
    root.command()(logout)
    root.add_typer(app, name="profile")


def login(
    profile: ProfileArgument = DEFAULT_PROFILE,
    region: Annotated[str, typer.Option(metavar="ID", help="Region of the service, such as us-east-1.")] = "",
    endpoint: EndpointOption = "",
    check: Annotated[bool, typer.Option("--check/--no-check", help="Try the key with one call first.")] = True,
    json: JsonOption = False,
) -> None:
    """Keep a key in a profile, which commands then use.

    The key is read from the terminal without being shown, or from standard input. It is kept in a file of mode 0600.
    """
    if region and endpoint:
        raise InvalidArgumentError("--region and --endpoint exclude each other: a region has its own endpoint.")
    key = _read_key()
    address = Config(region_id=region or None, endpoint=endpoint or None)
    resolve_settings(key, address)  # raises for what no client could use
    if check:
        _try_key(key, address)
    file = ProfileFile()
    file.save(profile, Profile(key, endpoint, region))
    fields = {"profile": profile, "endpoint": endpoint, "region": region, "file": str(file.path)}
    output.show(fields, f"The key is kept in {file.path} as the profile {profile}, which commands use from now on.")
    _note_overrides(profile)


def _note_overrides(profile: str) -> None:
    """Say it if a variable goes before the current profile."""
    for variable in ("AGENTBAY_API_KEY", PROFILE_VARIABLE):
        if os.environ.get(variable, profile) not in ("", profile):
            output.note(f"In this shell {variable} is set, which goes before it.")


def _read_key() -> str:
    if sys.stdin.isatty():
        key: str = typer.prompt("Key", hide_input=True, err=True)
    else:
        key = sys.stdin.readline()
    if not key.strip():
        raise InvalidArgumentError("There is no key on standard input.", hint="agentbay login < FILE")
    return key.strip()


def _try_key(key: str, address: Config) -> None:
    from agentbay import AgentBay

    with AgentBay(key, address) as bay, output.show_busy("trying the key"):
        bay.list(limit=1).unwrap()


def logout(profile: ProfileArgument = "", json: JsonOption = False) -> None:
    """Remove a profile with its key.

    Without a name it is the current one.
    """
    file = ProfileFile()
    name = profile or file.current()
    if not name:
        raise InvalidArgumentError("No profile is in use.", hint="To list them: agentbay profile list")
    file.remove(name)
    output.show({"profile": name}, f"The profile {name} is removed.")


@app.command("list")
def list_profiles(json: JsonOption = False) -> None:
    """List the profiles, without their keys."""
    file = ProfileFile()
    current = file.current()
    rows = [
        {
            "profile": name,
            "current": "*" if name == current else "",
            "endpoint": found.endpoint,
            "region": found.region_id,
        }
        for name, found in file.load().items()
    ]
    output.show_table(rows, "There are no profiles. To make one: agentbay login")


@app.command()
def use(profile: ProfileArgument, json: JsonOption = False) -> None:
    """Let commands use this profile from now on."""
    ProfileFile().use(profile)
    output.show({"profile": profile}, f"Commands use the profile {profile} from now on.")
    _note_overrides(profile)
