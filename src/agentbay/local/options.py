"""The options of a runtime, however it is started."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from importlib.util import find_spec
from typing import Annotated, Any, Literal, Self, get_args, get_origin, get_type_hints

from agentbay.errors import ConfigurationError
from agentbay.local.network.egress_policy import EgressRule, parse_rule

IsolationOption = Literal["auto", "landlock", "none"]
NetworkOption = Literal["none", "proxy", "host"]
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
WILDCARD_HOSTS = ("0.0.0.0", "::")  # every address of this machine; the latter those of IPv4 too
_NEEDED = ("uvicorn",)
_UNITS = {"": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]IB|)", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Read bytes: 536870912, 512MiB, 1.5GiB."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or not (amount := int(float(found[1]) * _UNITS[found[2].upper()])):
        raise ValueError(f"{text!r} is no size; write bytes, or KiB, MiB, GiB, TiB, as 512MiB")
    return amount


def parse_count(text: str) -> int:
    """Read a number from 1 on."""
    if not text.isascii() or not text.isdigit() or not int(text):
        raise ValueError(f"must be a whole number, at least 1, not {text!r}")
    return int(text)


def parse_processors(text: str) -> float:
    """Read a number of processors: 2, 0.5."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.01 <= number < 10_000:
        raise ValueError(f"must be a number of processors, as 2 or 0.5, not {text!r}")
    return number


def parse_port(text: str) -> int:
    """Read a port; 0 is any."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ValueError(f"must be 0 to 65535, not {text!r}")
    return int(text)


def parse_host_name(text: str) -> str:
    """Read a name or an address as it stands in a URL, without a port: sandbox.example, [2001:db8::1]."""
    if not _NAME.fullmatch(text.lower()):
        raise ValueError(f"must be a name or an address, without a port and IPv6 in brackets, not {text!r}")
    return text.lower()


def parse_seconds(text: str) -> float:
    """Read a time."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e9:
        raise ValueError(f"must be seconds, 0 or more, not {text!r}")
    return number


ByteSize = Annotated[int, parse_size]
Count = Annotated[int, parse_count]
Processors = Annotated[float, parse_processors]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run; `agentbay local --help` says what each means. A field `a_b` is the option `--a-b`."""

    host: str = LOOPBACK_HOSTS[0]
    port: Annotated[int, parse_port] = 0
    server_name: tuple[Annotated[str, parse_host_name], ...] = ()
    socket: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    state_dir: str | None = None
    context_store: str | None = None
    isolation: IsolationOption = "auto"
    link_url: Literal["on", "off"] = "on"
    storage_host: tuple[str, ...] = ()
    network: NetworkOption | None = None
    allow_host: tuple[Annotated[EgressRule, parse_rule], ...] = ()
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    log_format: Literal["text", "json"] = "text"
    drain: Annotated[float, parse_seconds] = 10.0
    max_sessions: Count | None = None
    session_processes: Count = 256
    session_memory: ByteSize | None = None
    session_disk: ByteSize | None = None
    session_cpus: Processors | None = None
    session_open_files: Count = 4096
    output_limit: ByteSize = 64 << 20
    processes: Count | None = None
    memory: ByteSize | None = None
    cpus: Processors | None = None

    def __post_init__(self) -> None:
        if self.socket is not None and (
            self.port or self.host != LOOPBACK_HOSTS[0] or self.tls_cert or self.server_name
        ):
            raise ConfigurationError("--socket stands alone: without --host, --port, --server-name and TLS.")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigurationError("--tls-cert and --tls-key belong together; one of them is missing.")
        if not self.host:
            raise ConfigurationError(
                "--host: '' is no host.", hint="Give a name or an address of this machine, or 0.0.0.0 for all."
            )
        if self.host not in LOOPBACK_HOSTS and self.tls_cert is None:
            raise ConfigurationError(
                f"--host {self.host} would serve other machines in the clear: keys and files could be read on the way.",
                hint="Give --tls-cert and --tls-key too, or stay on 127.0.0.1 behind a tunnel, as ssh -L.",
            )
        if self.isolation != "auto" and self.network not in (None, "host"):
            raise ConfigurationError(
                f"--network {self.network} takes namespaces, which --isolation {self.isolation} does without.",
                hint="Leave it out: sessions then have this machine's network.",
            )

    @property
    def session_network(self) -> NetworkOption:
        """The network of sessions that do not say."""
        return self.network or ("proxy" if self.isolation == "auto" else "host")

    @classmethod
    def from_strings(cls, given: Mapping[str, object]) -> Self:
        """Read options that were given as text, by their fields' names; what is None was not given.

        Raises:
            ConfigurationError: One of them cannot be; says which, and what it may be.
        """
        hints = get_type_hints(cls, include_extras=True)
        return cls(
            **{name: _parse_field(name, hints[name], value) for name, value in given.items() if value is not None}
        )


def _parse_field(name: str, hint: Any, value: object) -> Any:
    if isinstance(value, list):
        return tuple(_parse_field(name, hint, item) for item in value)
    try:
        return _parser_for(hint)(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ConfigurationError(f"--{name.replace('_', '-')}: {error}.") from error


def _parser_for(hint: Any) -> Callable[[str], object]:
    """Return what reads a text for a field: the function that its type names, or its choices."""
    for part in (hint, *get_args(hint)):
        if get_origin(part) is Annotated:
            read: Callable[[str], object] = get_args(part)[1]
            return read
        if get_origin(part) is Literal:
            return partial(_parse_choice, get_args(part))
    return str


def _parse_choice(choices: Sequence[str], text: str) -> str:
    if text not in choices:
        raise ValueError(f"must be {' or '.join(choices)}, not {text!r}")
    return text


def parse_arguments(arguments: Sequence[str], program: str) -> Options:
    """Read a command line that holds nothing but options, each with a value; people use `agentbay local`."""
    parser = argparse.ArgumentParser(program, allow_abbrev=False)
    for option in fields(Options):
        action = "append" if isinstance(option.default, tuple) else "store"
        parser.add_argument("--" + option.name.replace("_", "-"), action=action)
    return Options.from_strings(vars(parser.parse_args(arguments)))


def missing_packages_message() -> str:
    """Say what to install before a runtime can start, or ""."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if not missing:
        return ""
    return f'The local runtime needs {", ".join(missing)}: pip install "agentbay-sdk[local]"'
