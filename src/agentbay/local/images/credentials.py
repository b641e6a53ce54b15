"""Credentials for registries, from the files that Docker and Podman keep."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

_HELPER = re.compile(r"[\w.-]+", re.ASCII)
_HELPER_TIMEOUT_SECONDS = 20.0


@attrs.frozen
class Credentials:
    """A login or a token for a registry."""

    user: str
    password: str = attrs.field(repr=False)
    identity_token: str = attrs.field(repr=False, default="")


def find_credentials(host: str, environment: Mapping[str, str] = os.environ) -> Credentials | None:
    """Find the credentials for a registry, or None."""
    for file in _files(environment):
        try:
            document = json.loads(file.read_bytes())
        except (OSError, ValueError):
            # A file of another program, which is missing or damaged, holds no credentials for us.
            continue
        if isinstance(document, dict) and (found := _read(document, host)):
            return found
    return None


def _files(environment: Mapping[str, str]) -> Iterator[Path]:
    if named := environment.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers" / "auth.json"
    home = Path(environment.get("HOME") or "/")
    yield Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "containers" / "auth.json"
    yield Path(environment.get("DOCKER_CONFIG") or home / ".docker") / "config.json"


def _read(document: Mapping[str, Any], host: str) -> Credentials | None:
    helpers, logins = document.get("credHelpers"), document.get("auths")
    helper = helpers.get(host) if isinstance(helpers, dict) else None
    for name in (helper, document.get("credsStore")):
        if isinstance(name, str) and (found := _ask_helper(name, host)):
            return found
    for server, login in logins.items() if isinstance(logins, dict) else ():
        if _host_of(server) == host and isinstance(login, dict):
            return _read_login(login)
    return None


def _host_of(server: str) -> str:
    return server.partition("://")[2].partition("/")[0] if "://" in server else server.partition("/")[0]


def _read_login(login: Mapping[str, Any]) -> Credentials | None:
    try:
        user, _, password = base64.b64decode(login.get("auth") or "").decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, TypeError):
        return None
    token = login.get("identitytoken") or ""
    return Credentials(user, password, str(token)) if user or token else None


def _ask_helper(name: str, host: str) -> Credentials | None:
    """Ask a credential helper of Docker, a program that prints JSON."""
    program = shutil.which(f"docker-credential-{name}") if _HELPER.fullmatch(name) else None
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "get"], input=host.encode(), capture_output=True, timeout=_HELPER_TIMEOUT_SECONDS, check=False
        )
        found = json.loads(done.stdout) if done.returncode == 0 else {}
        user, secret = str(found["Username"]), str(found["Secret"])
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired):
        # Without the helper the pull is tried without a login, and the registry says what it wants.
        return None
    return Credentials("", "", secret) if user == "<token>" else Credentials(user, secret)
