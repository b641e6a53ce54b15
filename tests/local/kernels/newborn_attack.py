# ruff: noqa: PTH115, PTH123, PTH208
"""A program for inside a session, which stops and inspects new processes.

It prints a JSON line for each process whose descriptors it could list.
"""

import json
import os
import signal
import sys
import time

AHEAD = 64  # pids of a session are consecutive
TRIES, STEP_SECONDS = 5000, 0.0001


def open_files(pid):
    """Step a stopped process until its descriptors can be listed."""
    for _ in range(TRIES):
        try:
            return {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        except PermissionError:
            os.kill(pid, signal.SIGCONT)
            time.sleep(STEP_SECONDS)  # on an idle machine it would not get on between the two signals
            os.kill(pid, signal.SIGSTOP)
        except OSError:  # it has ended
            return None
    return None


def main(seconds):
    last, end = os.getpid(), time.monotonic() + seconds
    os.setsid()
    print("begun", flush=True)
    while time.monotonic() < end:
        for pid in range(last + 1, last + AHEAD):
            try:
                os.kill(pid, signal.SIGSTOP)
            except OSError:
                continue
            last = pid
            try:
                found = open_files(pid)
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    command = file.read().replace(b"\0", b" ").decode(errors="replace")
                if found is not None:
                    print(json.dumps({"pid": pid, "command": command, "files": found}), flush=True)
                os.kill(pid, signal.SIGCONT)
            except OSError:
                pass
            break


main(float(sys.argv[1]))
