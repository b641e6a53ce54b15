"""The options of a runtime, however it is started."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

_NEEDED = ("uvicorn",)


@dataclass(frozen=True, slots=True)
class Options:
    """How to run; see `agentbay local --help`."""

    port: int = 0
    state_dir: str | None = None
    isolation: Literal["auto", "none"] = "auto"
    links: bool = True
    log_level: str = "warning"
    storage_hosts: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser, log_level: str = "warning") -> None:
    """Add the runtime's options to a parser."""
    parser.add_argument("--port", type=_port, default=0, metavar="N", help="port on 127.0.0.1; 0, the default, is any")
    parser.add_argument(
        "--state-dir",
        metavar="DIR",
        help="where it keeps its files; one runtime at a time. Default: a temporary one, removed at the end",
    )
    parser.add_argument(
        "--isolation",
        choices=("auto", "none"),
        default="auto",
        help="auto, the default, isolates each session or refuses to start",
    )
    parser.add_argument(
        "--link-url",
        choices=("on", "off"),
        default="on",
        help="whether sessions offer to be called directly (default: on)",
    )
    parser.add_argument(
        "--storage-host",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="storage that sessions may copy from and to although its address is not public; may be repeated",
    )
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default=log_level)


def read(arguments: argparse.Namespace) -> Options:
    """Read the options that a parser has found."""
    return Options(
        port=arguments.port,
        state_dir=arguments.state_dir,
        isolation=arguments.isolation,
        links=arguments.link_url == "on",
        log_level=arguments.log_level,
        storage_hosts=tuple(arguments.storage_host),
    )


def parse(arguments: Sequence[str], program: str) -> Options:
    """Read a command line that holds nothing but the runtime's options."""
    parser = argparse.ArgumentParser(program, allow_abbrev=False)
    add_arguments(parser)
    return read(parser.parse_args(arguments))


def missing_packages() -> str:
    """Say what to install before a runtime can start, or ""."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if not missing:
        return ""
    return f'The local runtime needs {", ".join(missing)}: pip install "agentbay-sdk[local]"'


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"must be 0 to 65535, not {port}")
    return port
