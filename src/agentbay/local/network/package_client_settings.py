"""The package indexes that this machine's own clients use.

The egress policy allows them, and clients in sandboxes are told of them.

No registry is named here. They are read from the files and variables of pip, uv, npm, apt and git. Where those say
nothing, the defaults built into pip and npm count.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from urllib.parse import urlsplit

from agentbay.local.network.egress_policy import EgressRule, parse_host_port
from agentbay.local.sandbox.service import python_environment

_VARIABLE = re.compile(r"(PIP|UV|NPM_CONFIG|YARN)_\w*(INDEX|REGISTRY|FIND_LINKS)\w*", re.IGNORECASE)
_URL = re.compile(r"\bhttps?://[^\s\"'<>,;\]]+")
# comments, and proxies: a proxy is no destination
_IGNORED_LINES_PATTERN = re.compile(r"^\s*[#;].*$|^[^=\n]*proxy[^=\n]*=.*$", re.IGNORECASE | re.MULTILINE)
_PIP_SETTINGS = {"index-url": "PIP_INDEX_URL", "extra-index-url": "PIP_EXTRA_INDEX_URL"}
_CERTIFICATE_VARIABLES = (
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
)  # fmt: skip
_VISIBLE_CERTIFICATE_DIRS = ("/etc/ssl/", "/etc/pki/", "/usr/")  # sandboxes see the same certificates here
_COMMAND_TIMEOUT_SECONDS = 20.0  # npm is slow to start


def configured_rules() -> set[EgressRule]:
    """Return a rule for each host and port that the configuration names."""
    texts = [_IGNORED_LINES_PATTERN.sub("", _read(file)) for file in (*_pip_files(), *_npm_files(), *_other_files())]
    return _rules("\n".join([*texts, *_variables().values(), _git_settings()]))


def default_rules() -> set[EgressRule]:
    """Return rules for the built-in indexes of pip and npm that are in use.

    This takes up to seconds.
    """
    urls: list[str] = []
    if "PIP_INDEX_URL" not in package_client_environment():
        urls += _built_into_pip()
    if "NPM_CONFIG_REGISTRY" not in package_client_environment() and (npm := shutil.which("npm")):
        urls.append(_run_command([npm, "config", "get", "registry"]))
    return _rules("\n".join(urls))


def package_client_environment() -> dict[str, str]:
    """Return the variables for sandboxes: indexes without their credentials, and certificates."""
    found = {
        name: os.environ[name]
        for name in _CERTIFICATE_VARIABLES
        if os.environ.get(name, "").startswith(_VISIBLE_CERTIFICATE_DIRS)
    }
    for name, value in {**_from_pip(), **_from_npm(), **_variables()}.items():
        if urls := [_without_credentials(url) for url in _URL.findall(value)]:
            found[name.upper()] = " ".join(urls)
    return found


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if _VARIABLE.fullmatch(name)}


def _rules(text: str) -> set[EgressRule]:
    return set(_read_rules(text))


def _read_rules(text: str) -> Iterator[EgressRule]:
    for url in _URL.findall(text):
        parts = urlsplit(url)
        try:
            destination = parse_host_port(parts.netloc.rpartition("@")[2], 443 if parts.scheme == "https" else 80)
        except ValueError:  # such as a URL with a variable in it
            continue
        yield EgressRule(destination.host, (destination.port,))


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    # A password may hold an @ itself, so the last one ends the credentials.
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _configuration_home() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")


def _pip_files() -> list[Path]:
    """Return the configuration files of pip, the weakest first."""
    files = [Path("/etc/xdg/pip/pip.conf"), Path("/etc/pip.conf"), Path.home() / ".pip/pip.conf"]
    files += [_configuration_home() / "pip/pip.conf", Path(sys.prefix, "pip.conf")]
    return [*files, *([Path(named)] if (named := os.environ.get("PIP_CONFIG_FILE")) else [])]


def _npm_files() -> list[Path]:
    named = os.environ.get("NPM_CONFIG_USERCONFIG")
    return [Path("/etc/npmrc"), Path("/usr/etc/npmrc"), Path(named) if named else Path.home() / ".npmrc"]


def _other_files() -> list[Path]:
    apt = Path("/etc/apt")
    uv = [Path("/etc/uv/uv.toml"), _configuration_home() / "uv/uv.toml"]
    return [apt / "sources.list", *sorted(apt.glob("sources.list.d/*")), *uv]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # missing or not readable
        return ""


def _from_pip() -> dict[str, str]:
    found: dict[str, str] = {}
    for file in _pip_files():
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(_read(file))
        except configparser.Error:
            # pip refuses the file too, and says so to its user.
            continue
        for section in ("global", "install"):
            settings = dict(parser.items(section)) if parser.has_section(section) else {}
            found |= {variable: settings[name] for name, variable in _PIP_SETTINGS.items() if name in settings}
    return found


def _from_npm() -> dict[str, str]:
    text = "\n".join(map(_read, _npm_files()))
    found = re.findall(r"^\s*registry\s*=\s*(\S+)", text, re.MULTILINE)
    return {"NPM_CONFIG_REGISTRY": found[-1]} if found else {}


def _git_settings() -> str:
    """Return the lines of git's configuration that name URLs."""
    if not (git := shutil.which("git")):
        return ""
    lines = _run_command([git, "config", "--list"]).splitlines()
    return "\n".join(line for line in lines if line.startswith(("url.", "credential.", "http.http")))


def _built_into_pip() -> list[str]:
    """Return the index built into the pip of sandboxes.

    This process may be unable to import that pip.
    """
    if (place := python_environment.find_pip()) is None:
        return []
    spec = PathFinder.find_spec("index", [f"{place}/pip/_internal/models"])
    if spec is None or spec.loader is None:
        return []
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return [module.PyPI.url, f"https://{module.PyPI.file_storage_domain}"]


def _run_command(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command,
            # A project's .npmrc or .git/config in the working directory does not speak for the machine.
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
