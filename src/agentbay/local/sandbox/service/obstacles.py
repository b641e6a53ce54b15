"""Find what keeps a running sandbox from getting a new overlay.

Its processes must not notice. A process goes on with the files that it has open, so none may be open for writing, which
the kernel checks as well; and no directory, lock, watch or bound socket may be in use, since these would still
refer to the old files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator

from agentbay.local.sandbox.service.open_files import OpenFile, count_in_flight, list_open_files
from agentbay.local.sandbox.shared import proc_fs

_ELSEWHERE = ("/dev/", "/proc/", "/sys/")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_PATH
_MAX_SOCKETS_BYTES = 4 << 20


def find_obstacle(proc: int, targets: Collection[str]) -> str:
    """Return the first obstacle, as a text for the log, or "".

    Args:
        proc: A descriptor of the sandbox's /proc. Its processes are frozen.
        targets: The directories whose mounts are to be replaced.
    """
    for pid in proc_fs.list_pids(proc):
        process = proc_fs.read_process(proc, pid)
        if pid == proc_fs.INIT_PID or process is None or process.dead:
            continue
        try:
            if obstacle := next(_obstacles(proc, pid, targets), ""):
                return obstacle
        except PermissionError:
            return f"process {pid} cannot be inspected"
        except (FileNotFoundError, ProcessLookupError):  # it was killed
            continue
    return ""


def _obstacles(proc: int, pid: int, targets: Collection[str]) -> Iterator[str]:
    bound = _bound_sockets(proc, pid)
    for task in proc_fs.list_tasks(proc, pid):
        place = f"{pid}/task/{task}"
        if os.readlink(f"{place}/root", dir_fd=proc) != "/":
            yield f"process {pid} has another root"
        directory = os.readlink(f"{place}/cwd", dir_fd=proc)
        if directory not in targets and _is_replaced(directory, targets):
            yield f"process {pid} is in {directory}"
    for file in list_open_files(proc, pid):
        path = os.readlink(f"{pid}/fd/{file.name}", dir_fd=proc)
        if stat.S_ISSOCK(file.status.st_mode):
            if file.status.st_ino in bound or count_in_flight(proc, pid, file) > 0:
                yield f"process {pid} holds {path}"
        elif _is_in_the_way(proc, pid, file, path, targets):
            yield f"process {pid} holds {path}"


def _is_replaced(path: str, targets: Collection[str]) -> bool:
    below = any(path == target or path.startswith(f"{target.rstrip('/')}/") for target in targets)
    return below and not path.startswith(_ELSEWHERE)


def _is_in_the_way(proc: int, pid: int, file: OpenFile, path: str, targets: Collection[str]) -> bool:
    fdinfo = proc_fs.read_proc_file(proc, f"{pid}/fdinfo/{file.name}").splitlines()
    if path.startswith("anon_inode:"):
        return any(line.startswith(b"inotify ") for line in fdinfo)
    if not _is_replaced(path, targets) or path.startswith("/memfd:"):
        return False
    flags = next((int(line.split()[1], 8) for line in fdinfo if line.startswith(b"flags:")), os.O_RDWR)
    is_locked = any(line.startswith(b"lock:") for line in fdinfo)
    return not stat.S_ISREG(file.status.st_mode) or bool(flags & _WRITING) or is_locked


def _bound_sockets(proc: int, pid: int) -> set[int]:
    """Return the inodes of the unix sockets of its network that have a path."""
    try:
        fd = os.open(f"{pid}/net/unix", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    except OSError:
        return set()
    with open(fd, "rb") as file:
        rows = [line.split(None, 7) for line in file.read(_MAX_SOCKETS_BYTES).splitlines()[1:]]
    return {int(row[6]) for row in rows if len(row) == 8 and row[7].startswith(b"/")}
