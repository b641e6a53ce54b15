"""Memory that no control group counts and no process maps.

That is memory files, socket buffers and page tables.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import time
from collections.abc import Collection

from agentbay.local.sandbox.service.open_files import list_open_files
from agentbay.local.sandbox.service.spec import MIB
from agentbay.local.sandbox.shared import proc_fs
from agentbay.local.sandbox.shared.fd_io import closing_fd

_MAX_AGE_SECONDS = 2.0
_SUSPICIOUS_DROP_BYTES = 8 * MIB  # of the machine's available memory since the last measurement
_REST_TO_WORK_RATIO = 10  # between two measurements
_USUAL_PAGE_TABLES_KIB = 512  # of a process; reading one byte of every 2 MiB of a terabyte takes 2 GiB of them
_MAX_SOCKETS = 20_000  # that are looked at
# linux/sock_diag.h, linux/unix_diag.h
_SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP = 20, 0x301
_SHOW_MEMORY, _MEMORY_ATTRIBUTE = 0x20, 5
_MESSAGE_HEADER, _ATTRIBUTE_HEADER, _SOCKET_HEADER_BYTES = struct.Struct("=IHHII"), struct.Struct("=HH"), 16


class UnmappedMemory:
    """Measures such memory of a sandbox when the machine's memory runs low.

    Args:
        diag: A netlink socket of the sandbox's network, for its unix sockets; None if the network is the host's.
    """

    def __init__(self, diag: socket.socket | None) -> None:
        self._diag = diag
        self._found: dict[int, int] = {}
        self._available = 0
        self._measured_at = self._due_at = float("-inf")

    def measure(self, proc: int, pids: Collection[int]) -> dict[int, int]:
        """Return the bytes by pid of the first process that holds them."""
        now = time.monotonic()
        available = available_memory()
        self._available = max(self._available, available)
        suspicious = self._available - available > _SUSPICIOUS_DROP_BYTES or sum(self._found.values()) > 0
        if now >= self._due_at and (suspicious or now - self._measured_at > _MAX_AGE_SECONDS):
            self._found, self._available = self._measure_now(proc, pids), available
            self._measured_at = time.monotonic()
            self._due_at = self._measured_at + _REST_TO_WORK_RATIO * (self._measured_at - now)
        return {pid: size for pid, size in self._found.items() if pid in pids}

    def _measure_now(self, proc: int, pids: Collection[int]) -> dict[int, int]:
        found: dict[int, int] = {}
        seen: set[int] = set()
        sockets: dict[int, int] = {}
        for pid in pids:
            if page_tables := _page_table_bytes(proc, pid):
                found[pid] = page_tables
            try:
                for file in list_open_files(proc, pid):
                    if stat.S_ISSOCK(file.status.st_mode):
                        sockets[pid] = sockets.get(pid, 0) + 1
                    elif file.is_unlinked_on(_MEMFD_DEVICE) and file.status.st_ino not in seen:
                        seen.add(file.status.st_ino)
                        found[pid] = found.get(pid, 0) + file.allocated_bytes
            except PermissionError:
                # This one may not be inspected; the others are still counted.
                continue
        if sockets and self._diag:
            owner = max(sockets, key=sockets.__getitem__)  # nothing says cheaply which socket belongs to which process
            found[owner] = found.get(owner, 0) + unix_socket_bytes(self._diag)
        return found


def _page_table_bytes(proc: int, pid: int) -> int:
    fields = proc_fs.read_proc_file(proc, f"{pid}/status").split()
    size = int(fields[fields.index(b"VmPTE:") + 1]) if b"VmPTE:" in fields else 0
    return max(size - _USUAL_PAGE_TABLES_KIB, 0) << 10


def unix_socket_bytes(diag: socket.socket) -> int:
    """Return the bytes in unix socket buffers of a network namespace."""
    body = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _SHOW_MEMORY, 0, 0)
    header = _MESSAGE_HEADER.pack(_MESSAGE_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 0, 0)
    total = count = 0
    try:
        diag.send(header + body)
        while count < _MAX_SOCKETS:
            data, offset = diag.recv(1 << 16), 0
            while offset < len(data):
                length, kind, *_ = _MESSAGE_HEADER.unpack_from(data, offset)
                if kind != _SOCK_DIAG_BY_FAMILY:  # the end, or an error
                    return total
                total += _memory_of(data[offset + _MESSAGE_HEADER.size + _SOCKET_HEADER_BYTES : offset + length])
                count, offset = count + 1, offset + (length + 3 & ~3)
    except OSError:  # this kernel cannot tell
        pass
    return total


def _memory_of(attributes: bytes) -> int:
    offset = 0
    while offset + _ATTRIBUTE_HEADER.size <= len(attributes):
        length, kind = _ATTRIBUTE_HEADER.unpack_from(attributes, offset)
        if kind == _MEMORY_ATTRIBUTE:
            # SK_MEMINFO_RMEM_ALLOC, RCVBUF, WMEM_ALLOC
            received, _, written = struct.unpack_from("=III", attributes, offset + _ATTRIBUTE_HEADER.size)
            return int(received + written)
        offset += max(length + 3 & ~3, _ATTRIBUTE_HEADER.size)
    return 0


def available_memory() -> int:
    """Return how many bytes the machine can give without swapping."""
    with open("/proc/meminfo", "rb", buffering=0) as file:
        fields = file.read().split()
    return int(fields[fields.index(b"MemAvailable:") + 1]) << 10


def _memfd_device() -> int:
    with closing_fd(os.memfd_create("agentbay", os.MFD_CLOEXEC)) as fd:
        return os.fstat(fd).st_dev


_MEMFD_DEVICE = _memfd_device()
