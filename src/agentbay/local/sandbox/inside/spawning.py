"""Starting the programs of a sandbox, and knowing later what they have started."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from agentbay.local.sandbox.shared.sandbox_config import PROXY_PORT, SandboxConfig

FileAction = tuple[Any, ...]  # an element of the file_actions of posix_spawn

NOT_FOUND_EXIT_CODE, NOT_EXECUTABLE_EXIT_CODE = 127, 126
PROXY_ADDRESS = ("127.0.0.1", PROXY_PORT)
_PROXY_URL = f"http://{PROXY_ADDRESS[0]}:{PROXY_ADDRESS[1]}"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
# The soft limit of file locks tells which request a process belongs to. Linux inherits it whatever a program does to
# its environment, parent, group or session, and has not enforced it since 2.4.25.
_RLIMIT_LOCKS = 10
_TAG_BASE = 1 << 40  # above all limits that anybody sets, so that no other value is taken for a tag


class NotStarted(Exception):
    """A command could not be started.

    Message and exit code are those of a shell.
    """

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code, self.message = exit_code, message


class DirectoryNotEntered(NotStarted):
    """A command could not be started in its working directory."""

    def __init__(self, cwd: str, error: OSError) -> None:
        self.cwd, self.errno, self.reason = cwd, error.errno or 0, error.strerror or str(error)
        super().__init__(NOT_EXECUTABLE_EXIT_CODE, f"cd: {cwd}: {self.reason}")


def stream_actions(fds: Sequence[int]) -> list[FileAction]:
    """Return actions that make descriptors those from 0 on.

    They must be in ascending order, as the kernel passes them, so that none is replaced before it is used.
    """
    return [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(fds)]


def spawn(
    argv: list[str], cwd: str, environment: Mapping[str, str], file_actions: Sequence[FileAction], request: int
) -> int:
    """Start a command in a session of its own and return its pid.

    `has_tag` finds it by `request`, and everything that it starts.

    Raises:
        NotStarted: It could not be started, or its working directory not be entered.
    """
    try:
        # posix_spawn in Python takes no working directory, so the child inherits this one.
        os.chdir(cwd)
    except OSError as error:
        raise DirectoryNotEntered(cwd, error) from error
    try:
        _set_tag(_TAG_BASE + request)
        return os.posix_spawn(
            _find_executable(argv[0], environment.get("PATH", _PATH)),
            argv,
            environment,
            file_actions=file_actions,
            setsid=True,
            setsigmask=(),
            # Ignored signals survive exec, and pipelines such as `yes | head` end only by SIGPIPE.
            setsigdef=_IGNORED_BY_PYTHON,
        )
    except FileNotFoundError as error:
        reason = error.strerror if "/" in argv[0] else "command not found"
        raise NotStarted(NOT_FOUND_EXIT_CODE, f"{argv[0]}: {reason}") from error
    except OSError as error:
        raise NotStarted(NOT_EXECUTABLE_EXIT_CODE, f"{argv[0]}: {_describe(error)}") from error
    finally:
        _set_tag(resource.RLIM_INFINITY)  # file operations are forks of this process, and belong to no command
        os.chdir("/")


def _set_tag(value: int) -> None:
    # On a host with a limit of locks there are no tags. Then only parents and sessions show what belongs to a command.
    with suppress(ValueError):
        resource.setrlimit(_RLIMIT_LOCKS, (value, resource.getrlimit(_RLIMIT_LOCKS)[1]))


def has_tag(limits: bytes, request: int) -> bool:
    """Return whether a process with this /proc/PID/limits belongs to a request."""
    line = next((line for line in limits.splitlines() if line.startswith(b"Max file locks")), b"")
    return line.split()[3:4] == [b"%d" % (_TAG_BASE + request)]


def _describe(error: OSError) -> str:
    if error.errno == errno.EAGAIN:  # the kernel's "Resource temporarily unavailable" names no resource
        limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
        known = "" if limit == resource.RLIM_INFINITY else f" ({limit})"
        return f"cannot fork: the session has reached its limit of processes{known}"
    return os.strerror(error.errno or 0)


def _find_executable(command: str, path: str) -> str:
    """Find a command along `path`, then along the system's PATH.

    The second lookup finds what the service starts by name under any PATH of the session; posix_spawnp would use the
    PATH of this process.
    """
    if "/" in command:
        if os.path.isdir(command):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return command
    found = [os.path.join(directory or ".", command) for directory in f"{path}:{_PATH}".split(":")]
    present = [candidate for candidate in found if os.path.isfile(candidate)]
    for candidate in present:
        if os.access(candidate, os.X_OK):
            return candidate
    if present:
        return present[0]  # the kernel will say why it cannot be executed
    raise FileNotFoundError


def make_environment(config: SandboxConfig) -> dict[str, str]:
    """Return the variables that every program of a sandbox starts with."""
    home, user = config["home"], config["user"]
    default = {"HOME": home, "USER": user, "LOGNAME": user, "LANG": "C.UTF-8", "TERM": "dumb"}
    if config["has_image"]:  # all else is as the image has it
        default |= {"SHELL": "/bin/sh", "PATH": _PATH}
    else:
        python = config["python_prefix"]
        default |= {
            "SHELL": "/bin/bash",
            "PATH": f"{home}/.local/bin:{python}/bin:{_PATH}",
            "VIRTUAL_ENV": python,
            "PYTHONUSERBASE": python,  # where pip puts packages with --user, also that of another Python
        }
    if config["network"] == "proxy":
        # The proxy connects from the service's network, where these names mean the host itself.
        local = f"localhost,127.0.0.1,::1,0.0.0.0,{config['hostname']}"
        proxied = {"HTTP_PROXY": _PROXY_URL, "HTTPS_PROXY": _PROXY_URL, "NO_PROXY": local}
        # Programs differ: curl reads http_proxy in lower case only, and Node.js none without its own switch.
        default |= proxied | {name.lower(): value for name, value in proxied.items()} | {"NODE_USE_ENV_PROXY": "1"}
    if config["isolation"] != "namespaces":
        default["TMPDIR"] = os.path.join(config["root"], "tmp")
    elif not config["has_image"]:
        # the system is read-only, so packages are installed for this user
        default |= {"PIP_BREAK_SYSTEM_PACKAGES": "1", "NPM_CONFIG_PREFIX": f"{home}/.local"}
    return default | config["env"]
