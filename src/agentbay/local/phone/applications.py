"""The applications of a phone."""

from __future__ import annotations

import asyncio
import itertools
import re
import shlex
from typing import Any

from agentbay.local.phone.adb import Phone, PhoneFailed

_LAUNCHER = "-a android.intent.action.MAIN -c android.intent.category.LAUNCHER"
_PACKAGE = re.compile(r"[A-Za-z]\w*(\.\w+)+", re.ASCII)
_START_SECONDS = 10.0  # for an application to have a process
_POLL_SECONDS = 0.1


async def list_applications(phone: Phone, *, ignore_system: bool) -> list[dict[str, str]]:
    """Describe the applications of the launcher.

    Raises:
        PhoneFailed: The phone does not list them.
    """
    listed = await _lines(phone, f"cmd package query-activities --brief {_LAUNCHER}")
    packages = {line.partition("/")[0] for line in listed if "/" in line and " " not in line}
    if ignore_system:
        packages -= {line.removeprefix("package:") for line in await _lines(phone, "pm list packages -s")}
    return [
        {
            "name": package,
            "start_cmd": _start_command(package),
            "stop_cmd": package,
        }
        for package in sorted(packages)
    ]


async def start_application(phone: Phone, command: str, activity: str) -> list[dict[str, Any]]:
    """Start an application, and describe its processes.

    Args:
        command: As the list has it, or the name of the package alone.
        activity: Which of its screens to show, as `.Settings`; "" is the first one.

    Raises:
        PhoneFailed: It does not start.
    """
    words, package = _parse_command(command)
    if activity:
        line = f"am start -W -n {shlex.quote(f'{package}/{activity}')}"
    elif words == [package]:
        line = _start_command(package)
    else:
        line = shlex.join(words)  # as one command, whatever else the text would mean to the phone's shell
    output = (await phone.run(line)).decode("utf-8", "replace")
    if "Error" in output or "No activities found" in output:  # neither monkey nor am has an exit code for it
        raise PhoneFailed(output.strip()[-500:])
    loop = asyncio.get_running_loop()
    end = loop.time() + _START_SECONDS
    while True:
        pids = (await phone.run(f"pidof {package} || true")).split()
        if pids or loop.time() >= end:
            return [{"pname": package, "pid": int(pid), "cmdline": package} for pid in pids]
        await asyncio.sleep(_POLL_SECONDS)


async def stop_application(phone: Phone, package: str) -> None:
    """Stop an application by the name of its package.

    Raises:
        PhoneFailed: That is no name of a package, or the phone refuses.
    """
    await phone.run(f"am force-stop {_parse_command(package)[1]}")


def _start_command(package: str) -> str:
    return f"monkey -p {package} -c android.intent.category.LAUNCHER 1"


def _parse_command(command: str) -> tuple[list[str], str]:
    """Return the words of a command, and the package that it names."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise PhoneFailed(f"the command {command!r:.200} cannot be read: {error}") from error
    named = [word for flag, word in itertools.pairwise(words) if flag == "-p"] or words[:1]
    if not named or not _PACKAGE.fullmatch(named[0]):
        raise PhoneFailed(f"{command!r:.200} names no package, as com.android.settings or monkey -p PACKAGE 1 do")
    return words, named[0]


async def _lines(phone: Phone, command: str) -> list[str]:
    return (await phone.run(command)).decode("utf-8", "replace").split("\n")
