"""Read the configuration: the service's address, the key and the time limit.

This is the one reader of the environment.
"""

from __future__ import annotations

import os
import re
import socket
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ._arguments import checked_arguments, refusal
from ._lazy_attrs import define, field
from .errors import ConfigurationError

DEFAULT_REGION = "cn-hangzhou"
DEFAULT_TIMEOUT_SECONDS = 60.0
_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
_KNOWN_REGIONS = frozenset({"cn-hangzhou", "ap-southeast-1", "us-east-1"})
_PRERELEASE_ENDPOINTS = {
    "pre-cn-hangzhou": "agentbay-pre.cn-hangzhou.aliyuncs.com",
    "pre-ap-southeast-1": "wuyingai-pre.ap-southeast-1.aliyuncs.com",
}
PROFILE_VARIABLE = "AGENTBAY_PROFILE"
_LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
_ENVIRONMENT_VARIABLES = ("AGENTBAY_API_KEY", "AGENTBAY_REGION_ID", "AGENTBAY_ENDPOINT", "AGENTBAY_TIMEOUT_MS")


@checked_arguments(timeout_ms=None)
@define(slots=False)
class Config:
    """The address of the service, and the time limit.

    A client that gets one does not read the environment for these values.

    Attributes:
        timeout_ms: Milliseconds for one operation; None means 60,000.
        region_id: Region, such as "cn-hangzhou" (the default), which decides the endpoint.
        endpoint: Host, or URL with `http://` or `https://`, used as it is; or `unix:PATH`, the socket of a local
            runtime. Ignored if a region is given.
    """

    timeout_ms: int | None = None
    region_id: str | None = None
    endpoint: str | None = field(default=None, repr=lambda value: repr(value and redact_url(value)))


class Settings(NamedTuple):
    """The settings of a client, after all defaults.

    `repr` leaves the key out.

    Attributes:
        timeout: Seconds for one operation.
        socket_path: Path of the unix socket through which `http://localhost` is reached, or "".
    """

    api_key: str
    region_id: str
    url: str
    host: str
    timeout: float
    socket_path: str = ""

    def __repr__(self) -> str:
        where = f"unix:{self.socket_path}" if self.socket_path else self.url
        return f"Settings(region_id={self.region_id!r}, url={where!r}, timeout={self.timeout})"


def resolve_settings(
    api_key: str = "", cfg: Config | None = None, env_file: str | None = None, timeout: float | None = None
) -> Settings:
    """Decide key, endpoint and time limit from the arguments or the environment.

    Args:
        api_key: The key; empty means the variable AGENTBAY_API_KEY, then the profile that AGENTBAY_PROFILE names.
        cfg: The address; None means the variables AGENTBAY_REGION_ID, AGENTBAY_ENDPOINT and AGENTBAY_TIMEOUT_MS.
        env_file: File with such variables, for those missing in the environment; needs the extra `dotenv`.
        timeout: Seconds for one operation; goes before `cfg` and the environment.

    Raises:
        ConfigurationError: If there is no key, or a value cannot be used.
    """
    environment = _read_environment(env_file)
    name = os.environ.get(PROFILE_VARIABLE)
    if name and not api_key and "AGENTBAY_API_KEY" not in environment:
        environment = {**environment, **_read_profile(name)}
    key = api_key or environment.get("AGENTBAY_API_KEY", "")
    if not key:
        raise ConfigurationError(
            "API key is required. Provide it as a parameter or set the AGENTBAY_API_KEY environment variable.",
            hint="Without an account, use AgentBay.local() or AsyncAgentBay.local(): it runs sessions on this machine.",
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("The API key holds a blank or a character that no key has: was it copied whole?")
    if cfg is None:
        cfg = Config(
            _parse_timeout_ms(environment.get("AGENTBAY_TIMEOUT_MS")),
            environment.get("AGENTBAY_REGION_ID"),
            environment.get("AGENTBAY_ENDPOINT"),
        )
    region, endpoint = _region_and_endpoint(cfg)
    if endpoint.startswith("unix:"):
        url, host, path = "http://localhost", "localhost", _socket_path(endpoint)
    else:
        (url, host), path = _parse_endpoint(endpoint), ""
    return Settings(key, region, url, host, _timeout_seconds(cfg, timeout), path)


def _read_environment(env_file: str | None) -> Mapping[str, str]:
    found = {name: os.environ[name] for name in _ENVIRONMENT_VARIABLES if os.environ.get(name)}
    if env_file is None:
        return found
    if not Path(env_file).is_file():
        raise ConfigurationError(f"env_file {env_file!r} does not exist.")
    try:
        from dotenv import dotenv_values
    except ImportError as error:
        raise ConfigurationError(
            "env_file= needs the package python-dotenv.", hint='Install it with pip install "agentbay-sdk[dotenv]".'
        ) from error
    return {**{name: value for name, value in dotenv_values(env_file).items() if value}, **found}


def _read_profile(name: str) -> Mapping[str, str]:
    """Return a profile as variables.

    Its address replaces that of the environment, since its key is for that one.
    """
    from ._profiles import ProfileFile

    profile = ProfileFile().get(name)
    return {
        "AGENTBAY_API_KEY": profile.api_key,
        "AGENTBAY_REGION_ID": profile.region_id,
        "AGENTBAY_ENDPOINT": profile.endpoint,
    }


def _parse_timeout_ms(text: str | None) -> int | None:
    if text is None:
        return None
    if text.isdecimal() and int(text) > 0:
        return int(text)
    warnings.warn(f"AGENTBAY_TIMEOUT_MS is not a positive whole number: {text!r}; using 60000", stacklevel=5)
    return None


def _region_and_endpoint(cfg: Config) -> tuple[str, str]:
    region = cfg.region_id
    if region:
        if cfg.endpoint:
            warnings.warn(f"region_id {region!r} goes before endpoint {redact_url(cfg.endpoint)!r}", stacklevel=5)
        plain = region.removeprefix("pre-")
        endpoint = _PRERELEASE_ENDPOINTS.get(region) or (
            f"agentbay{'-pre' if plain != region else ''}.{plain}.aliyuncs.com"
        )
        if region not in _KNOWN_REGIONS and region not in _PRERELEASE_ENDPOINTS:
            warnings.warn(f"unknown region_id {region!r}; its endpoint is taken to be {endpoint}", stacklevel=5)
        return plain, endpoint
    return DEFAULT_REGION, cfg.endpoint or f"agentbay.{DEFAULT_REGION}.aliyuncs.com"


def _parse_endpoint(endpoint: str) -> tuple[str, str]:
    url = (endpoint if "://" in endpoint else f"https://{endpoint}").rstrip("/")
    if not _is_bare_url(url):
        raise ConfigurationError(
            f"The endpoint {redact_url(endpoint)!r} is not a host or a URL.",
            hint="Write it as host, host:port, http://host:port or unix:/path.",
        )
    return url, urlsplit(url).netloc


def check_verify(name: str, verify: object) -> None:
    """Refuse a `verify` of another type."""
    if not isinstance(verify, (bool, str)) or "\0" in str(verify):
        import ssl  # now, as it takes long to import

        if not isinstance(verify, ssl.SSLContext):
            raise refusal(name, "True, False, a path or an SSLContext", verify)


def check_proxy(name: str, proxy: str) -> None:
    """Refuse a proxy that is neither a URL nor HOST:PORT.

    Raises:
        ConfigurationError: Names the parameter, and shows the proxy without its password.
    """
    url = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(url)
        fine = parts.hostname and (parts.port or "://" in proxy) and parts.scheme in _PROXY_SCHEMES
    except ValueError:  # the port is not a number
        fine = False
    if not fine:
        raise ConfigurationError(
            f"{name} must be the URL of a proxy, not {redact_url(proxy)!r:.200}.",
            hint="Write it as http://host:port, https://host:port or socks5://host:port.",
        )


def _socket_path(endpoint: str) -> str:
    path = endpoint.removeprefix("unix:")
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigurationError(
            f"The endpoint {endpoint!r} needs unix sockets, which Python has none of here.",
            hint="Start the runtime with --port, and give its http:// address.",
        )
    if not path.startswith("/"):
        raise ConfigurationError(f"The endpoint {endpoint!r} names no socket.", hint="Write it as unix:/the/path.")
    return path


def redact_url(endpoint: str) -> str:
    """Return an endpoint or the URL of a proxy without user, password and query."""
    # Split and not matched by one expression, whose time would grow with the square of a long text's length.
    parts = [f"…{part.rpartition('@')[2]}" if "@" in part else part for part in endpoint.split("/")]
    return re.sub(r"(?s)[?#].*", "…", "/".join(parts))


def _is_bare_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        fine = bool(parts.hostname) and (parts.port is None or parts.port > 0) and not parts.username
    except ValueError:  # the port is not a number
        return False
    is_web = parts.scheme in ("http", "https") and not parts.query and not parts.fragment
    return fine and is_web and not any(char.isspace() for char in url)


def _timeout_seconds(cfg: Config, timeout: float | None) -> float:
    if timeout is not None:
        return check_timeout(timeout)
    if isinstance(cfg.timeout_ms, int) and not isinstance(cfg.timeout_ms, bool) and cfg.timeout_ms > 0:
        return cfg.timeout_ms / 1000
    return DEFAULT_TIMEOUT_SECONDS


def requested_log_level() -> str:
    """Return the level that the variable AGENTBAY_LOG asks for, or "".

    Raises:
        ConfigurationError: It is no level.
    """
    level = os.environ.get("AGENTBAY_LOG", "")
    if level and level.lower() not in _LOG_LEVELS:
        raise ConfigurationError(
            f"AGENTBAY_LOG must be {', '.join(_LOG_LEVELS[:-1])} or {_LOG_LEVELS[-1]}, not {level!r:.40}."
        )
    return level


def check_timeout(timeout: float) -> float:
    """Return a time limit.

    Raises:
        ConfigurationError: It is not a positive number.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise ConfigurationError(f"timeout must be a positive number of seconds, not {timeout!r}.")
    return float(timeout)
