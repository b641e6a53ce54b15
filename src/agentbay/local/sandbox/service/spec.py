"""What a caller asks of a sandbox, and what it gets back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from agentbay.local.sandbox.service.writable_directories import WritableDirectory
from agentbay.local.sandbox.shared.sandbox_config import CLIENT_HOME, SANDBOX_GID, SANDBOX_UID

IsolationMode = Literal["namespaces", "landlock", "none"]
NetworkMode = Literal["none", "proxy", "host"]

MIB = 1 << 20
_MACHINE_MEMORY_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class BindMount:
    """A file or directory of the host, shown live inside at `target`.

    To be writable there, it must belong to `SandboxManager.owner`.

    Attributes:
        nofollow_root: A parent of the source below which other sandboxes may write; no link below it is followed.
    """

    source: str
    target: str
    read_only: bool = False
    nofollow_root: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a sandbox.

    None means the host's own limit.

    Attributes:
        processes: Most processes and threads of the whole sandbox at a time.
        memory_bytes: Most private memory of each process, in bytes; allocation beyond it fails in that process.
        open_files: Most open descriptors of each process.
        file_size: Largest file that a process may write, in bytes.
        total_memory_bytes: Most memory of all processes together, in bytes; beyond it the largest is killed. Exact
            with control groups; without them the watchdog notices up to 0.25 s later.
        disk_bytes: Most disk space of home, /tmp, the Python environment and further writable directories together,
            in bytes; beyond it the commands are killed, some tenths of a second later, and the file API writes
            nothing. Binds do not count.
        cpu_share: Weight, 1 to 10,000, by which sandboxes that compete for processors share them; the usual one is
            100. Without control groups it is a niceness, and shares above 100 count as 100.
        cpu_quota: Most processors used on average, such as 0.5 or 2; only with control groups.
        output_bytes: Bytes kept of each output stream of a command.
    """

    processes: int | None = 1024
    memory_bytes: int | None = None
    open_files: int | None = 4096
    file_size: int | None = None
    total_memory_bytes: int | None = field(default_factory=lambda: _MACHINE_MEMORY_BYTES // 2)
    disk_bytes: int | None = None
    cpu_share: int = 100
    cpu_quota: float | None = None
    output_bytes: int = 64 * MIB

    def __post_init__(self) -> None:
        if not 1 <= self.cpu_share <= 10_000:
            raise ValueError(f"cpu_share must be 1 to 10000, not {self.cpu_share}")


@dataclass(frozen=True, slots=True)
class ImageRoot:
    """An image as the root of a sandbox.

    Attributes:
        layers: Directories of unpacked layers, the lowest first, which nobody changes.
        directories: That are made in it, if they are missing.
        python: The path of its own Python, "" if it has none: then it gets the runtime's.
        has_shell: Whether it has `sh`.
    """

    layers: Sequence[str]
    directories: Sequence[str] = ()
    python: str = ""
    has_shell: bool = True


@dataclass(slots=True)
class SharedLayer:
    """What a sandbox has written, since it was made read-only and shared.

    Attributes:
        size: Bytes that it takes on disk; 0 until that is measured.
    """

    path: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """A sandbox to be created.

    Attributes:
        root: An existing private directory on disk; its `home`, `tmp` and `python` become the sandbox's, or its
            `image` if there is one.
        image: Its root; None means the programs of the host.
        network: "none" is a loopback of its own and nothing else; "proxy" adds a listener for a proxy, which the
            service serves (`Sandbox.take_proxy_listener`); "host" is the host's network with all its listeners.
        layers: What the sandbox's own directories start from, likewise directories with `home`, `tmp` and so on, the
            lowest first. Without any, they lie in `root` itself.
        shared: Those layers that count to the disk limit.
        directory: Where commands and relative paths start, relative to home; it need not exist yet.
        writable: Further directories that may be written, from `writable_directories.choose_writable`.
        env: Environment of every command, over the default one.
    """

    root: Path
    home: str = CLIENT_HOME
    user: str = "wuying"
    uid: int = SANDBOX_UID
    gid: int = SANDBOX_GID
    image: ImageRoot | None = None
    hostname: str = "agentbay"
    network: NetworkMode = "none"
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    binds: Sequence[BindMount] = ()
    layers: Sequence[str] = ()
    shared: Sequence[SharedLayer] = ()
    directory: str = ""
    writable: Sequence[WritableDirectory] = ()
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended.

    Attributes:
        exit_code: As a shell reports it: 128 + N after signal N, 127 not found, 126 found but not startable.
        timed_out: The command was killed at its time limit; the output is what it had written until then.
        truncated: Output beyond the limit was discarded.
    """

    exit_code: int
    stdout: bytes | bytearray
    stderr: bytes | bytearray
    timed_out: bool = False
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """What the processes of a sandbox use now, without process 1.

    Attributes:
        cpu_seconds: Processor time since the sandbox was created, of ended processes too.
        memory_bytes: Private and shared-memory pages in use, without pages of program files.
        processes: How many there are.
    """

    cpu_seconds: float
    memory_bytes: int
    processes: int
