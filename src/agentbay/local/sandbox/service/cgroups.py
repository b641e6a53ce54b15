"""Control groups: limits of a sandbox as a whole, and a freezer.

Version 2, version 1, or both at once; rlimits, the watchdog and signals stand in for what is missing. Groups are
created below the one of this process, so that no sandbox gets more than its runtime has. The freezer of version 1 is
not used: what it has frozen cannot be killed, and would outlive a killed runtime (measured on Linux 6.18).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from agentbay.local.sandbox.service.spec import Limits
from agentbay.local.sandbox.shared.fd_io import closing_fd

_logger = logging.getLogger(__name__)

_PREFIX = "agentbay-"
_CONTROLLERS = ("pids", "memory", "cpu")
_SETUP_PROCESSES = 3  # that help to create a sandbox and then end; RLIMIT_NPROC is the exact limit
_CPU_PERIOD_MICROSECONDS = 100_000  # the kernel's own default
_FREEZE_SPIN_SECONDS = 0.02  # most processes freeze in that time
_REMOVE_TIMEOUT_SECONDS = 0.5  # for dead processes to leave their groups
_numbers = itertools.count(1)  # of all sandboxes of this process, which may have several managers


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted cgroup hierarchy.

    Attributes:
        base: The directory below which groups are created.
        controllers: The resources it limits: "pids", "memory" and "cpu".
        unified: It is version 2, which can freeze without any controller.
    """

    base: str
    controllers: frozenset[str]
    unified: bool


class Cgroup:
    """The groups of one sandbox, one in each hierarchy."""

    def __init__(self, hierarchies: Mapping[str, Hierarchy]) -> None:
        self._hierarchies_by_directory = dict(hierarchies)
        self.freezable_path = next((path for path, tree in hierarchies.items() if tree.unified), None)
        self._memory = next((item for item in hierarchies.items() if "memory" in item[1].controllers), None)

    @property
    def limits_memory(self) -> bool:
        """Whether the kernel limits the memory of the whole sandbox."""
        return self._memory is not None

    def set_limits(self, limits: Limits) -> None:
        """Write the limits to the groups."""
        for path, tree in self._hierarchies_by_directory.items():
            for name, value in _limit_files(limits, tree):
                _write(f"{path}/{name}", value)

    def open_entrances(self) -> list[int]:
        """Return descriptors, the caller's, by which `fork_into` puts a new process into the groups."""
        fds: list[int] = []
        with contextlib.ExitStack() as undo:
            for path, tree in self._hierarchies_by_directory.items():
                # not `cgroup.procs`, which waits long, as `zygote/joining.py` explains
                entrance = path if tree.unified else f"{path}/tasks"
                fd = os.open(entrance, (os.O_RDONLY if tree.unified else os.O_WRONLY) | os.O_CLOEXEC)
                undo.callback(os.close, fd)
                fds.append(fd)
            undo.pop_all()
        return fds

    def oom_kill_count(self) -> int:
        """Return how many processes the kernel's OOM killer has killed."""
        if self._memory is None:
            return 0
        path, tree = self._memory
        events = _read(f"{path}/memory.events" if tree.unified else f"{path}/memory.oom_control")
        return next((int(line.split()[1]) for line in events.splitlines() if line.startswith("oom_kill ")), 0)

    def process_count(self) -> int:
        """Return how many processes are in the group that can be frozen."""
        return len(_read(f"{self.freezable_path}/cgroup.procs").split())

    def remove(self) -> bool:
        """Remove the groups.

        Return False if a dying process is still in one.
        """
        self._hierarchies_by_directory = {
            path: tree for path, tree in self._hierarchies_by_directory.items() if not _remove(path)
        }
        return not self._hierarchies_by_directory


class CgroupManager:
    """The groups of this runtime, below one with its pid in the name."""

    def __init__(self, hierarchies: Iterable[Hierarchy]) -> None:
        self._hierarchies = list(hierarchies)
        self._name = f"{_PREFIX}{os.getpid()}-{_process_start_time(os.getpid())}"
        self._awaiting_removal: list[Cgroup] = []

    @classmethod
    def discover(cls) -> CgroupManager | None:
        """Find hierarchies in which groups can be created, or return None.

        Groups of dead runtimes there are removed.
        """
        hierarchies = []
        for tree in _find_hierarchies(_read("/proc/self/mountinfo"), _read("/proc/self/cgroup")):
            if tree.unified or tree.controllers:
                _remove_stale(tree.base)
                hierarchies.append(tree)
        return cls(hierarchies) if hierarchies else None

    @property
    def controllers(self) -> frozenset[str]:
        """The limited resources, and "freezer" if groups can be frozen."""
        limited = frozenset[str]().union(*(tree.controllers for tree in self._hierarchies))
        return limited | {"freezer"} if any(tree.unified for tree in self._hierarchies) else limited

    def set_total_limits(self, limits: Limits) -> None:
        """Limit all sandboxes together, once a group has been created.

        Raises:
            OSError: This user may not, after all.
        """
        for tree in self._hierarchies:
            for name, value in _limit_files(limits, tree):
                _write(f"{tree.base}/{self._name}/{name}", value)

    def create(self) -> Cgroup:
        """Create the groups of one sandbox, without limits so far.

        Raises:
            OSError: This user may not, after all.
        """
        number = next(_numbers)
        hierarchies = {f"{tree.base}/{self._name}/{number}": tree for tree in self._hierarchies}
        group = Cgroup(hierarchies)
        try:
            for path, tree in hierarchies.items():
                _make(path, tree)
        except OSError:
            group.remove()
            raise
        return group

    def dispose(self, group: Cgroup) -> None:
        """Remove a group, now or as soon as its last process has left it."""
        self._awaiting_removal = [leaving for leaving in [*self._awaiting_removal, group] if not leaving.remove()]

    def close(self) -> None:
        """Remove the groups that are left."""
        deadline = time.monotonic() + _REMOVE_TIMEOUT_SECONDS
        while any(not group.remove() for group in self._awaiting_removal) and time.monotonic() < deadline:
            time.sleep(0.001)
        for tree in self._hierarchies:
            path = f"{tree.base}/{self._name}"
            if not _remove(path):
                _log_left(path)


async def freeze(group: Cgroup, *, timeout: float = 2.0) -> bool:
    """Freeze a group, or return False after `timeout` seconds.

    The group runs again then: some process would not stop.
    """
    _write(f"{group.freezable_path}/cgroup.freeze", "1")
    started = time.monotonic()
    # The write only asks for it: the kernel reports in cgroup.events when every process has stopped.
    while "frozen 1" not in _read(f"{group.freezable_path}/cgroup.events"):
        waited = time.monotonic() - started
        if waited > timeout:
            thaw(group)
            return False
        await asyncio.sleep(0 if waited < _FREEZE_SPIN_SECONDS else 0.002)
    return True


def thaw(group: Cgroup) -> None:
    """Thaw a group."""
    _write(f"{group.freezable_path}/cgroup.freeze", "0")


def _find_hierarchies(mountinfo: str, membership: str) -> Iterator[Hierarchy]:
    """Find the hierarchies that are mounted and writable, and contain this process.

    Args:
        mountinfo: The content of /proc/self/mountinfo.
        membership: The content of /proc/self/cgroup: lines `number:controllers:path`, for version 2 `0::path`.
    """
    paths = {names: path for _, names, path in (line.split(":", 2) for line in membership.splitlines())}
    seen: set[str] = set()
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        root, mount = left.split()[3:5]
        kind, _, options = (*right.split(maxsplit=2), "", "")[:3]
        if kind == "cgroup2" and "" in paths:
            top, own = mount, _cgroup_directory(mount, root, paths[""])
            tree = _find_v2_base(top, own) if own else None
        elif kind == "cgroup":
            own = next(
                (
                    _cgroup_directory(mount, root, path)
                    for names, path in paths.items()
                    if _has_controllers(options, names)
                ),
                None,
            )
            tree = Hierarchy(own, frozenset(_CONTROLLERS) & set(options.split(",")), False) if own else None
        else:
            continue
        if tree and tree.base not in seen and os.access(tree.base, os.W_OK | os.X_OK):
            seen.add(tree.base)
            yield tree


def _has_controllers(options: str, names: str) -> bool:
    return bool(names) and set(names.split(",")) <= set(options.split(","))


def _cgroup_directory(mount: str, root: str, path: str) -> str | None:
    """Return the directory of group `path` in a mount of `root`."""
    prefix = "" if root == "/" else root
    if ".." in path.split("/") or not (path + "/").startswith(prefix + "/"):
        return None  # it lies outside of the mount
    return os.path.normpath(mount + path[len(prefix) :])


def _find_v2_base(top: str, own: str) -> Hierarchy | None:
    """Choose the parent directory of new version 2 groups.

    A group with processes cannot give controllers to its children.
    """
    directory, fallback = own, None
    while directory.startswith(top):
        if all(os.access(path, os.W_OK) for path in (directory, f"{directory}/cgroup.procs")):
            controllers = _enable_controllers(directory)
            if controllers:
                return Hierarchy(directory, controllers, True)
            fallback = fallback or Hierarchy(directory, frozenset(), True)
        directory = os.path.dirname(directory)
    return fallback


def _enable_controllers(directory: str) -> frozenset[str]:
    """Enable controllers for the groups below `directory`, where allowed.

    Return the enabled ones.
    """
    offered = set(_read(f"{directory}/cgroup.controllers").split()) & set(_CONTROLLERS)
    for name in offered - set(_read(f"{directory}/cgroup.subtree_control").split()):
        try:
            _write(f"{directory}/cgroup.subtree_control", "+" + name)
        except OSError:  # it holds processes, or is not ours
            continue
    return frozenset(offered & set(_read(f"{directory}/cgroup.subtree_control").split()))


def _make(path: str, tree: Hierarchy) -> None:
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        os.mkdir(parent)
        if tree.unified:
            for name in tree.controllers:
                _write(f"{parent}/cgroup.subtree_control", "+" + name)
    os.mkdir(path)


def _limit_files(limits: Limits, tree: Hierarchy) -> Iterator[tuple[str, str]]:
    """Yield files and contents, in the order in which the kernel accepts them."""
    if "pids" in tree.controllers and limits.processes is not None:
        yield "pids.max", str(limits.processes + _SETUP_PROCESSES)
    if "memory" in tree.controllers and limits.total_memory_bytes is not None:
        limit = str(limits.total_memory_bytes)
        if tree.unified:
            # With swap left, the kernel would page out beyond the limit instead of killing.
            yield from (("memory.max", limit), ("memory.swap.max", "0"))
        else:  # memsw is memory and swap together
            yield from (("memory.limit_in_bytes", limit), ("memory.memsw.limit_in_bytes", limit))
    if "cpu" in tree.controllers:
        if tree.unified:
            yield "cpu.weight", str(limits.cpu_share)
        else:
            # 1024 is the default of version 1, as 100 is of version 2, and the kernel takes no less than 2.
            yield "cpu.shares", str(max(2, limits.cpu_share * 1024 // 100))
        if limits.cpu_quota is not None:
            quota = max(1000, round(limits.cpu_quota * _CPU_PERIOD_MICROSECONDS))  # the kernel's least
            yield (
                ("cpu.max", f"{quota} {_CPU_PERIOD_MICROSECONDS}") if tree.unified else ("cpu.cfs_quota_us", str(quota))
            )


def _remove_stale(base: str) -> None:
    """Remove the groups of dead runtimes."""
    left = [f"{base}/{name}" for name in os.listdir(base) if _is_stale(name)]
    # One limit for all groups: a start must not take the longer, the more of them hold a process that does not die.
    deadline = time.monotonic() + _REMOVE_TIMEOUT_SECONDS
    while (left := [path for path in left if not _remove_all(path)]) and time.monotonic() < deadline:
        time.sleep(0.005)  # killed processes may still be dying
    for path in left:
        _log_left(path)


def _is_stale(name: str) -> bool:
    pid, _, started = name.removeprefix(_PREFIX).partition("-")
    return name.startswith(_PREFIX) and pid.isdigit() and _process_start_time(int(pid)) != started


def _remove_all(runtime: str) -> bool:
    """Remove the groups of a runtime.

    Return False if a process is still in one.
    """
    with contextlib.suppress(FileNotFoundError), os.scandir(runtime) as entries:  # another runtime may remove them too
        for entry in entries:
            if entry.is_dir():
                _remove(entry.path)
    return _remove(runtime)


def _process_start_time(pid: int) -> str:
    """Return when a process began, in clock ticks since boot, or "".

    A pid alone may be used again.
    """
    stat = _read(f"/proc/{pid}/stat")
    return stat.rpartition(")")[2].split()[19] if stat else ""


def _remove(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:  # a process is still in it, or it belongs to another user
        return False
    return True


def _log_left(path: str) -> None:
    _logger.debug("%s stays: a process is still in it, or it belongs to another user", path)


def _read(path: str) -> str:
    try:
        # each command reads twice, and a text file takes three times as long
        with open(path, "rb", buffering=0) as file:
            return file.read().decode(errors="surrogateescape")
    except OSError:  # this kernel has no such file, or its process is gone
        return ""


def _write(path: str, content: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if "swap" in path or "memsw" in path:  # this kernel does not count swap
            return
        raise
    with closing_fd(fd):
        os.write(fd, content.encode())
