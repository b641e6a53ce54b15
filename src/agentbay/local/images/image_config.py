"""What an image says about the sessions that run it: variables, user, working directory."""

from __future__ import annotations

import os
import platform
import posixpath
import stat
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from typing import Any

from agentbay._lazy_attrs import define, field
from agentbay.local.images.errors import DamagedImage, ImageError
from agentbay.local.images.merged_view import MergedView
from agentbay.local.sandbox.shared import dirfd
from agentbay.local.sandbox.shared.sandbox_config import CLIENT_HOME

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # of the kernel: as images name it
_MAX_TEXT_BYTES = 1 << 20
_MAX_ID = (1 << 32) - 2
_MAX_ID_DIGITS = 10


def machine_architecture() -> str:
    """Return this machine's architecture, as images name it."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


@define(frozen=True, slots=False, kw_only=True)
class ImageConfig:
    """The settings of an image.

    Attributes:
        user: As the image names it: a name or a number, perhaps with a group after a colon.
        entrypoint: Starts with each session, with `command` as arguments.
        os: The operating system.
    """

    env: dict[str, str] = field(factory=dict)
    workdir: str = ""
    user: str = ""
    entrypoint: list[str] = field(factory=list)
    command: list[str] = field(factory=list)
    labels: dict[str, str] = field(factory=dict)
    architecture: str = field(factory=machine_architecture)
    os: str = "linux"
    created: str = ""


@define(frozen=True, slots=False, kw_only=True)
class ImageUser:
    """The user of an image's sessions, looked up in the image.

    Attributes:
        uid: As processes in the session see it.
    """

    name: str = "root"
    uid: int = 0
    gid: int = 0
    home: str = "/root"


@define(frozen=True, slots=False, kw_only=True)
class ImagePrograms:
    """Programs that an image has.

    Attributes:
        shell: The path of its `sh`, "" if it has none.
        python: The path of its `python3`, "" if it has none.
    """

    shell: str = ""
    python: str = ""


def read_config(document: Mapping[str, Any]) -> ImageConfig:
    """Read the configuration of an OCI or Docker image.

    Raises:
        ImageError: It is malformed, or for another machine.
    """
    settings = document.get("config") or {}
    try:
        architecture, system = document.get("architecture") or machine_architecture(), document.get("os") or "linux"
        config = ImageConfig(
            env=dict(_split_variable(line) for line in settings.get("Env") or ()),
            workdir=_workdir(settings.get("WorkingDir") or ""),
            user=str(settings.get("User") or ""),
            entrypoint=_strings(settings.get("Entrypoint")),
            command=_strings(settings.get("Cmd")),
            labels={str(name): str(value) for name, value in (settings.get("Labels") or {}).items()},
            architecture=str(architecture),
            os=str(system),
            created=str(document.get("created") or ""),
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise DamagedImage(f"The image's configuration is malformed: {error}.") from error
    if (config.architecture, config.os) != (machine_architecture(), "linux"):
        raise ImageError(
            f"The image is for {config.os}/{config.architecture}, and this machine runs linux/{machine_architecture()}."
        )
    return config


def diff_ids(document: Mapping[str, Any]) -> list[str]:
    """Return the digests of an image's uncompressed layers, the lowest first.

    Raises:
        DamagedImage: The configuration does not say.
    """
    rootfs = document.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, Mapping) else None
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise DamagedImage("The image's configuration does not list its layers.")
    return found


def _split_variable(line: object) -> tuple[str, str]:
    name, equals, value = str(line).partition("=")
    if not equals or not name or "\0" in value:
        raise ValueError(f"{line!r:.80} is no variable")
    return name, value


def _strings(found: object) -> list[str]:
    if isinstance(found, str):
        return [found]
    return [str(item) for item in found] if isinstance(found, Sequence) else []


def _workdir(path: str) -> str:
    if "\0" in path:
        raise ValueError("the working directory holds a NUL")
    return posixpath.normpath(f"/{path}").replace("//", "/") if path else ""


def find_user(config: ImageConfig, layers: Sequence[str]) -> ImageUser:
    """Look up the user of an image in its passwd file.

    Args:
        layers: Its unpacked layers, the lowest first.

    Raises:
        ImageError: There is no such user in the image.
    """
    with closing(MergedView(layers[::-1])) as view:
        passwd = _entries(_read_text(view, "etc/passwd"), 7)
        groups = _entries(_read_text(view, "etc/group"), 3)
    name, _, group = (config.user or "0").partition(":")
    entry = next((line for line in passwd if name in (line[0], line[2])), None)
    if entry is None and not _is_id(name):
        raise ImageError(f"The image's user is {name!r:.80}, whom its /etc/passwd does not have.")
    uid = int(entry[2]) if entry else int(name)
    gid = int(entry[3]) if entry else 0
    if group:
        found = next((line[2] for line in groups if group in (line[0], line[2])), group)
        if not _is_id(found):
            raise ImageError(f"The image's group is {group!r:.80}, which its /etc/group does not have.")
        gid = int(found)
    if not (0 <= uid <= _MAX_ID and 0 <= gid <= _MAX_ID):
        raise ImageError(f"The image's user {config.user!r:.80} has an id that no user can have.")
    if entry is None:
        return ImageUser(gid=gid) if uid == 0 else ImageUser(name=f"user{uid}", uid=uid, gid=gid, home=CLIENT_HOME)
    home = entry[5] if entry[5].startswith("/") and entry[5] != "/nonexistent" else CLIENT_HOME
    return ImageUser(name=entry[0], uid=uid, gid=gid, home=home)


def find_programs(config: ImageConfig, layers: Sequence[str]) -> ImagePrograms:
    """Look up a shell and a Python in an image."""
    with closing(MergedView(layers[::-1])) as view:
        return ImagePrograms(
            shell=_find_program(view, "sh", "/bin"),
            python=_find_program(view, "python3", config.env.get("PATH") or DEFAULT_PATH),
        )


def _find_program(view: MergedView, name: str, path: str) -> str:
    for directory in path.split(":"):
        parts = tuple(part for part in directory.split("/") if part)
        # A directory of PATH that leads out of the image, or round in a circle, holds no program.
        with suppress(DamagedImage):
            place = (*view.real_directory(parts), name)
            found = view.find(place)
            # Of a link, what counts is where it leads: `real_directory` resolves the whole path.
            found = view.find(view.real_directory(place)) if found is not None else None
            if found is not None and found.kind == "file" and found.mode & 0o111:
                return f"{directory.rstrip('/')}/{name}"
    return ""


def _read_text(view: MergedView, path: str) -> str:
    try:
        place = view.real_directory(tuple(path.split("/")))
        if (found := view.find(place)) is None or found.kind != "file":
            return ""
        with view.open_lower_parent(place) as directory:
            fd = os.open(place[-1], dirfd.FILE_OPEN_FLAGS, dir_fd=directory)
            with open(fd, "rb") as file:
                return file.read(_MAX_TEXT_BYTES).decode(errors="replace") if _is_file(fd) else ""
    except (OSError, DamagedImage):
        return ""


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MAX_ID_DIGITS


def _is_file(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


def _entries(text: str, fields: int) -> list[list[str]]:
    lines = [line.split(":") for line in text.splitlines()]
    return [line for line in lines if len(line) >= fields and _is_id(line[2]) and (fields < 7 or _is_id(line[3]))]
