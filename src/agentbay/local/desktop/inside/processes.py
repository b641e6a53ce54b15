"""Processes of the sandbox, as /proc shows them."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentbay.local.desktop.inside.refusal import Refused

_INIT_PID = 1
_STOP_SECONDS = 3.0  # between the request to end and the kill
_POLL_SECONDS = 0.01
_IDLE_SAMPLES, _IDLE_POLL_SECONDS = 5, 0.02  # in a row
_IDLE_TIMEOUT_SECONDS = 10.0
_NAME_CHARACTERS = 15  # the kernel keeps no more of a name


def name_of(pid: int) -> str:
    """Return the name of a process, "" if it is gone."""
    return _read(pid, "comm").decode("utf-8", "replace").rstrip("\n")


def describe(pids: list[int]) -> list[dict[str, Any]]:
    """Describe processes, as the tools do."""
    return [{"pname": name_of(pid), "pid": pid, "cmdline": " ".join(_arguments(pid))} for pid in pids if name_of(pid)]


def session_of(leader: int) -> list[int]:
    """Return the processes of the session that this process leads."""
    return [pid for pid in _all_pids() if _session(pid) == leader and _state(pid) != "Z"]


def named(name: str) -> list[int]:
    """Return the processes of a name: their program's, or their own."""
    return [pid for pid in _all_pids() if pid != os.getpid() and name in _names(pid)]


def stop(pids: list[int]) -> None:
    """Ask processes to end, and kill those that have not after 3 seconds.

    Raises:
        Refused: One of them may not be ended.
    """
    if _INIT_PID in pids:  # the kernel would drop the signal
        raise Refused(f"process {_INIT_PID} may not be ended")
    for pid in pids:
        _send(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while left := [pid for pid in pids if _state(pid) not in ("", "Z")]:
        if time.monotonic() > deadline:
            for pid in left:
                _send(pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def wait_until_idle(pid: int) -> None:
    """Return when a process only waits, or after some seconds.

    A process that waits for a processor of a busy machine is no idle one.
    """
    deadline = time.monotonic() + _IDLE_TIMEOUT_SECONDS
    idle = 0
    while idle < _IDLE_SAMPLES and time.monotonic() < deadline:
        time.sleep(_IDLE_POLL_SECONDS)
        idle = idle + 1 if _state(pid) == "S" else 0


def is_running(pid: int) -> bool:
    """Return whether there is such a process."""
    return _state(pid) not in ("", "Z")


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        # It has ended, which is what was asked for.
        pass
    except PermissionError as error:
        raise Refused(f"process {pid} may not be ended") from error


def _all_pids() -> list[int]:
    own = os.getpid()
    return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) not in (_INIT_PID, own))


def _names(pid: int) -> set[str]:
    arguments = _arguments(pid)
    program = os.path.basename(arguments[0]) if arguments else ""
    # A name longer than the kernel keeps is found by its program.
    return {name_of(pid), program, program[:_NAME_CHARACTERS]}


def _arguments(pid: int) -> list[str]:
    return _read(pid, "cmdline").decode("utf-8", "replace").rstrip("\0").split("\0")


def _state(pid: int) -> str:
    fields = _status_fields(pid)
    return fields[0] if fields else ""


def _session(pid: int) -> int:
    fields = _status_fields(pid)
    return int(fields[3]) if fields else 0


def _status_fields(pid: int) -> list[str]:
    # The name may hold spaces and parentheses itself, so its end is the last one.
    return _read(pid, "stat").decode("utf-8", "replace").rpartition(")")[2].split()


def _read(pid: int, name: str) -> bytes:
    # It has ended, or belongs to another user.
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""
