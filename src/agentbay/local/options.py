"""The options of a runtime, and how their texts are parsed."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from importlib.util import find_spec
from typing import Annotated, Any, Literal, Self, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from agentbay.errors import ConfigurationError
from agentbay.local.network.egress_policy import EgressRule, parse_rule

IsolationOption = Literal["auto", "landlock", "none"]
NetworkOption = Literal["none", "proxy", "host"]
MODEL_KEY_VARIABLE = "AGENTBAY_MODEL_API_KEY"
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
WILDCARD_HOSTS = ("0.0.0.0", "::")  # every address of this machine; "::" includes IPv4
_NEEDED = ("uvicorn",)
_UNITS = {"": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]IB|)", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Parse a number of bytes: 536870912, 512MiB, 1.5GiB."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or not (amount := int(float(match[1]) * _UNITS[match[2].upper()])):
        raise ValueError(f"{text!r} is no size; write bytes, or KiB, MiB, GiB, TiB, as 512MiB")
    return amount


def parse_count(text: str) -> int:
    """Parse a whole number, at least 1."""
    # isdigit() alone is true for "²", which int() refuses with a message of its own.
    if not text.isascii() or not text.isdigit() or not int(text):
        raise ValueError(f"must be a whole number, at least 1, not {text!r}")
    return int(text)


def parse_processors(text: str) -> float:
    """Parse a number of processors: 2, 0.5."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.01 <= number < 10_000:
        raise ValueError(f"must be a number of processors, as 2 or 0.5, not {text!r}")
    return number


def parse_port(text: str) -> int:
    """Parse a port, where 0 stands for any free one."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ValueError(f"must be 0 to 65535, not {text!r}")
    return int(text)


def parse_host_name(text: str) -> str:
    """Parse a host as in a URL, without a port: sandbox.example, [2001:db8::1]."""
    if not _NAME.fullmatch(text.lower()):
        raise ValueError(f"must be a name or an address, without a port and IPv6 in brackets, not {text!r}")
    return text.lower()


def parse_model_url(text: str) -> str:
    """Parse the URL of a model's endpoint, which holds no secret."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable, parts = False, urlsplit("")
    if not usable or parts.username is not None or parts.query or parts.fragment:
        # Not shown, since a user may have put a key into it.
        raise ValueError(
            "must be http:// or https:// with a host and a path, as http://127.0.0.1:11434/v1, without user, password "
            f"and query; the key goes into {MODEL_KEY_VARIABLE}"
        )
    return text.rstrip("/")


def parse_seconds(text: str) -> float:
    """Parse a number of seconds, 0 or more."""
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


def _option(default: Any, about: str, metavar: str | None = None, shown_default: str | None = None) -> Any:
    """Declare an option.

    `metavar` and `shown_default` replace its type and its default on the help page.
    """
    return field(default=default, metadata={"help": about, "metavar": metavar, "show_default": shown_default})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a runtime.

    Both command lines are made from these fields: a field `a_b` is the option `--a-b`.
    """

    host: str = _option(
        LOOPBACK_HOSTS[0],
        "Name or address at which clients reach it; other than loopback only with TLS and a key. 0.0.0.0 is every "
        "address of this machine, :: those of IPv6 too.",
        "NAME",
    )
    server_name: tuple[Annotated[str, parse_host_name], ...] = _option(
        (), "Further name or address at which clients may reach it; may be repeated.", "NAME"
    )
    port: Annotated[int, parse_port] = _option(0, "Port to listen on; 0 is any free one.", "N")
    published: Literal["loopback"] | None = _option(
        None,
        "In a container whose port is published on the loopback of its machine alone: listen at every address of the "
        "container, without TLS.",
        shown_default="no",
    )
    socket: str | None = _option(None, "Serve on a unix socket that only you can open, and on no port.", "PATH")
    tls_cert: str | None = _option(None, "Certificate with its chain, PEM.", "FILE")
    tls_key: str | None = _option(None, "Private key of the certificate, PEM.", "FILE")
    state_dir: str | None = _option(
        None,
        "Directory for its files; one runtime uses it at a time.",
        "DIR",
        "a temporary one, removed at the end",
    )
    context_store: str | None = _option(
        None,
        "Bucket that keeps the files of contexts, as s3://BUCKET/PREFIX?endpoint=https://... or oss://...; "
        "credentials come from the environment.",
        "URL",
        "the state directory",
    )
    isolation: IsolationOption = _option(
        "auto",
        "auto isolates each session or refuses to start; landlock and none are for machines that forbid namespaces, "
        "and warn about what they leave open.",
    )
    network: NetworkOption | None = _option(
        None,
        "Network of sessions that do not choose one: none, an egress proxy to allowed hosts, or this machine's own.",
        shown_default="proxy",
    )
    allow_host: tuple[Annotated[EgressRule, parse_rule], ...] = _option(
        (),
        "Host that sessions may reach through the egress proxy, in addition to those that pip, npm, apt and git of "
        "this machine use. *.DOMAIN and * match public addresses only; without a port, 80 and 443. May be repeated.",
        "HOST[:PORT]",
    )
    storage_host: tuple[str, ...] = _option(
        (),
        "Storage that sessions may copy from and to although its address is not public; may be repeated.",
        "HOST[:PORT]",
    )
    skills: str | None = _option(
        None, "Folder whose subdirectories with a SKILL.md are the skills that sessions can load.", "DIR", "no skills"
    )
    model_url: Annotated[str, parse_model_url] | None = _option(
        None,
        "OpenAI-compatible endpoint of a model for the operator and the agents, as http://127.0.0.1:11434/v1; "
        f"its key comes from {MODEL_KEY_VARIABLE}.",
        "URL",
        "no model",
    )
    model: str | None = _option(None, "Name of that model.", "NAME")
    task_steps: Count = _option(50, "Steps of one task of the model.", "N")
    task_time: Annotated[float, parse_seconds] = _option(600.0, "Time of one task of the model.", "SECONDS", "600")
    task_tokens: Count = _option(500_000, "Tokens that one task of the model may read and write.", "N")
    image_registry: str | None = _option(
        None, "Registry of images whose names have no host, as HOST or HOST/PATH.", "HOST[/PATH]", "none"
    )
    image_mirror: str | None = _option(
        None,
        "Mirror that is asked for all images; the name of an image with its host is appended.",
        "HOST[/PATH]",
        "none",
    )
    link_url: Literal["on", "off"] = _option("on", "Whether clients may call the tools of a session directly.")
    start_ahead: Literal["on", "off"] = _option(
        "on",
        "Whether the browser or desktop of the next session is started ahead, once a session has used one; it takes up "
        "to 250 MiB for ten minutes. Not done with --memory or --processes.",
    )
    max_sessions: Count | None = _option(None, "Sessions at a time.", "N", "no limit")
    session_memory: ByteSize | None = _option(
        None, "Memory of a session, such as 2GiB.", "SIZE", "half of the machine's"
    )
    session_processes: Count = _option(1024, "Processes and threads of a session.", "N")
    session_disk: ByteSize | None = _option(None, "Disk space of a session.", "SIZE", "what the machine can spare")
    session_cpus: Processors | None = _option(
        None, "Processors of a session, such as 0.5; needs control groups.", "N", "no limit"
    )
    session_open_files: Count = _option(4096, "Open files of each process of a session.", "N")
    output_limit: ByteSize = _option(64 << 20, "Bytes kept of each output stream of a command.", "SIZE", "64MiB")
    memory: ByteSize | None = _option(None, "Memory of all sessions together.", "SIZE", "no limit")
    processes: Count | None = _option(
        None,
        "Processes of all sessions together; without control groups, each session counts with its own limit.",
        "N",
        "no limit",
    )
    cpus: Processors | None = _option(
        None, "Processors of all sessions together; needs control groups.", "N", "no limit"
    )
    drain: Annotated[float, parse_seconds] = _option(
        10.0, "Time for calls under way to finish when the runtime is stopped.", "SECONDS", "10"
    )
    log_level: Literal["debug", "info", "warning", "error"] = _option("info", "Least severe messages to log.")
    log_format: Literal["text", "json"] = _option("text", "Lines for people, or one JSON object per line.")

    def __post_init__(self) -> None:
        if self.socket is not None and (
            self.port or self.host != LOOPBACK_HOSTS[0] or self.tls_cert or self.server_name
        ):
            raise ConfigurationError("--socket stands alone: without --host, --port, --server-name and TLS.")
        if self.published and (self.socket is not None or self.host != LOOPBACK_HOSTS[0] or self.tls_cert):
            raise ConfigurationError("--published stands alone: without --host, --socket and TLS.")
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
        if bool(self.model_url) != bool(self.model):
            raise ConfigurationError("--model-url and --model belong together; one of them is missing.")
        if self.isolation != "auto" and self.network not in (None, "host"):
            raise ConfigurationError(
                f"--network {self.network} takes namespaces, which --isolation {self.isolation} does without.",
                hint="Leave it out: sessions then have this machine's network.",
            )

    @property
    def session_network(self) -> NetworkOption:
        """The network of sessions that do not choose one."""
        return self.network or ("proxy" if self.isolation == "auto" else "host")

    @classmethod
    def from_strings(cls, given: Mapping[str, object]) -> Self:
        """Parse options given as text by field name, where None means not given.

        Raises:
            ConfigurationError: A value is not valid; the message names the option and what it may be.
        """
        hints = get_type_hints(cls, include_extras=True)
        parsed = {}
        for name, value in given.items():
            try:
                if value is not None:
                    parsed[name] = parse_value(hints[name], value)
            except ValueError as error:
                raise ConfigurationError(f"--{name.replace('_', '-')}: {error}.") from error
        return cls(**parsed)


def parse_value(hint: Any, value: object) -> Any:
    """Parse a text for a field, and return other values as they are.

    Raises:
        ValueError: The text is not valid.
    """
    if isinstance(value, list):
        return tuple(parse_value(hint, item) for item in value)
    return _parser_for(hint)(value) if isinstance(value, str) else value


def _parser_for(hint: Any) -> Callable[[str], object]:
    """Return the parser in a field's annotation, or one for its choices."""
    for part in (hint, *get_args(hint)):
        if get_origin(part) is Annotated:
            parse: Callable[[str], object] = get_args(part)[1]
            return parse
        if get_origin(part) is Literal:
            return partial(_parse_choice, get_args(part))
    return str


def _parse_choice(choices: Sequence[str], text: str) -> str:
    if text not in choices:
        raise ValueError(f"must be {' or '.join(choices)}, not {text!r}")
    return text


def parse_arguments(arguments: Sequence[str], program: str) -> Options:
    """Parse a command line that has only options, each with a value.

    Programs use it, by `python -m agentbay.local`; people use `agentbay local`.
    """
    parser = argparse.ArgumentParser(program, allow_abbrev=False)
    for option in fields(Options):
        action = "append" if isinstance(option.default, tuple) else "store"
        parser.add_argument("--" + option.name.replace("_", "-"), action=action)
    return Options.from_strings(vars(parser.parse_args(arguments)))


def missing_packages_message() -> str:
    """Return which packages must be installed before a runtime can start, or ""."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if not missing:
        return ""
    return f'The local runtime needs {", ".join(missing)}: pip install "agentbay-sdk[local]"'
