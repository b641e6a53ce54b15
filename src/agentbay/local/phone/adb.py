"""Commands on a phone, through the `adb` program of this machine.

A phone is driven from outside of every sandbox: code of a session reaches neither adb nor its keys.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Mapping
from typing import NamedTuple

INSTALL_HINT = "apt-get install adb"
SERIAL_VARIABLE = "ANDROID_SERIAL"  # adb's own
_LIST_SECONDS = 20.0  # adb may have to start its server first
_COMMAND_SECONDS = 30.0
_CHUNK_BYTES = 64 << 10
_MAX_OUTPUT_BYTES = 64 << 20  # a screenshot of a large screen has less
_STATE_HINTS = {
    "unauthorized": "confirm this computer on its screen",
    "offline": "it does not answer; unplug it and plug it in again",
    "no permissions": "this user may not open USB devices of its kind",
}
_DEVICE_LINE = re.compile(r"(\S+)\s+(no permissions|\S+)")


class PhoneFailed(Exception):
    """A phone cannot be used, or refused a request."""

    def __init__(self, message: str, code: str = "PhoneFailed.Local") -> None:
        super().__init__(message)
        self.code = code


class PhoneCommandFailed(PhoneFailed):
    """A command on the phone failed, or adb itself."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class _Ended(NamedTuple):
    exit_code: int
    stdout: bytes
    stderr: str


class Phone:
    """One phone, by the serial number that adb lists."""

    def __init__(self, serial: str) -> None:
        self.serial = serial

    async def run(self, command: str, *, timeout: float = _COMMAND_SECONDS) -> bytes:
        """Run a command line in the phone's shell, and return its output.

        Raises:
            PhoneCommandFailed: It failed.
            PhoneFailed: It took longer than `timeout` seconds, or its output is too long.
        """
        ended = await _run_adb("-s", self.serial, "shell", "-T", command, timeout=timeout)
        if ended.exit_code:
            output = ended.stdout[-500:].decode("utf-8", "replace")
            reason = (ended.stderr or output).strip()[-500:] or f"exit code {ended.exit_code}"
            raise PhoneCommandFailed(reason, ended.exit_code)
        return ended.stdout


async def find_phone(environment: Mapping[str, str] = os.environ) -> Phone:
    """Return the phone that is plugged in.

    If there are several, the variable `ANDROID_SERIAL` chooses one.

    Raises:
        PhoneFailed: There is no phone that can be used.
    """
    if shutil.which("adb") is None:
        raise _no_phone(f"this machine has no adb. Install it: {INSTALL_HINT}")
    listed = await _run_adb("devices", timeout=_LIST_SECONDS)
    if listed.exit_code:
        raise _no_phone(f"adb failed: {listed.stderr.strip()[-300:]}")
    states = dict(_DEVICE_LINE.findall(listed.stdout.decode("utf-8", "replace").partition("\n")[2]))
    chosen_serial = environment.get(SERIAL_VARIABLE)
    serials = [serial for serial in states if chosen_serial in (None, "", serial)]
    if not serials:
        problem = f"adb lists no phone {chosen_serial!r}" if chosen_serial else "adb lists no phone"
        raise _no_phone(f"{problem}. Plug one in, with USB debugging switched on")
    usable = [serial for serial in serials if states[serial] == "device"]
    if len(usable) > 1:
        raise _no_phone(f"adb lists several, and {SERIAL_VARIABLE} must name one: {', '.join(usable)}")
    if not usable:
        state = states[serials[0]]
        raise _no_phone(f"{serials[0]} is {state}" + (f": {hint}" if (hint := _STATE_HINTS.get(state)) else ""))
    return Phone(usable[0])


def _no_phone(why: str) -> PhoneFailed:
    return PhoneFailed(f"There is no phone to drive: {why}.", "PhoneNotFound.Local")


async def _run_adb(*arguments: str, timeout: float) -> _Ended:
    process = await asyncio.create_subprocess_exec(
        "adb",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await asyncio.gather(_read_bounded(process.stdout), _read_bounded(process.stderr))
            await process.wait()
    except TimeoutError as error:
        raise PhoneFailed(f"The phone did not answer within {timeout:.0f} seconds") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _Ended(process.returncode or 0, stdout, stderr.decode("utf-8", "replace"))


async def _read_bounded(stream: asyncio.StreamReader) -> bytes:
    output = bytearray()
    while chunk := await stream.read(_CHUNK_BYTES):
        output += chunk
        if len(output) > _MAX_OUTPUT_BYTES:
            raise PhoneFailed(f"The phone sends more than the {_MAX_OUTPUT_BYTES >> 20} MiB that are allowed")
    return bytes(output)
