"""The name by which a process is listed."""

from __future__ import annotations

import ctypes
import os


def set_process_title(name: str) -> None:
    """Show `name` instead of the command line, which tells every sandbox where on the host this package lies."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, proc_pid_stat(5)
    if not 0 < start < end:  # a kernel that does not tell
        return
    text = os.fsencode(name)[: end - start - 1]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, text, len(text))
