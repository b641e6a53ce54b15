"""Configuration files of the host whose credentials sandboxes must not see.

Package clients and shells read them, so those without credentials stay visible. The others are hidden behind an empty
file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from agentbay.local.sandbox.shared import syscalls
from agentbay.local.sandbox.shared.syscalls import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY

# of pip, npm and uv for the whole machine, and what shells and R read at their start
_FILES = (
    "/etc/bash.bashrc", "/etc/profile", "/etc/xdg/pip/pip.conf", "/etc/xdg/uv/uv.toml", "/usr/etc/npmrc",
    "/usr/lib/node_modules/npm/npmrc", "/usr/local/etc/npmrc", "/usr/local/lib/node_modules/npm/npmrc",
    "/usr/local/pip.conf", "/usr/pip.conf", "/usr/share/nodejs/npm/npmrc",
)  # fmt: skip
_DIRECTORIES = ("/etc/profile.d", "/etc/R")
_MAX_BYTES = 1 << 20  # read of each file
_EMPTY_FILE = "run/empty"
# a URL with a login, or a setting such as npm's _authToken
_CREDENTIALS = re.compile(
    rb"://[^/\s@'\"]+@|^[^#;\n]*(?:_auth|_authtoken|password|passwd|token|secret)\w*['\"]?\s*[=:]\s*\S",
    re.IGNORECASE | re.MULTILINE,
)


def hide_credential_files() -> None:
    """Hide files with credentials in the root below the working directory."""
    # A mount on a link lands on its target, and several names may lead to one file.
    found = sorted({os.path.realpath(path) for path in _candidates() if _has_credentials(path)})
    if not found:
        return
    with open(_EMPTY_FILE, "wb"):
        pass
    for path in found:
        if os.path.exists(path[1:]):  # else the sandbox does not see it
            syscalls.bind_mount(_EMPTY_FILE, path[1:], MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
    # The mounts keep the file itself alive.
    os.unlink(_EMPTY_FILE)


def _candidates() -> Iterator[str]:
    yield from _FILES
    for directory in _DIRECTORIES:
        try:
            yield from (os.path.join(directory, name) for name in os.listdir(directory))
        except OSError:  # this machine has none
            continue


def _has_credentials(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return _CREDENTIALS.search(file.read(_MAX_BYTES)) is not None
    except OSError:  # missing, a directory, or not readable for this user, and so for the sandbox
        return False
