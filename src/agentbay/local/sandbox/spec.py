"""What a caller asks of a sandbox and what it gets back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or directory of the host, shown live inside the sandbox at `target` (an absolute path there).

    To be writable there, it must belong to `SandboxHost.owner`.
    """

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a sandbox; None leaves a limit as it is on the host.

    Attributes:
        processes: Most processes and threads of the whole sandbox at a time.
        memory_bytes: Most private memory of each process, in bytes; allocation beyond it fails in that process.
        open_files: Most open descriptors of each process.
        file_size: Largest file that a process may write, in bytes.
    """

    processes: int | None = 256
    memory_bytes: int | None = None
    open_files: int | None = 4096
    file_size: int | None = None


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """A sandbox to be made.

    Attributes:
        root: An existing private directory on disk; `home` and `tmp` below it become the sandbox's own.
        network: "none" is a loopback of its own and nothing else, "host" the host's network.
        env: Environment of every command, over the default one.
    """

    root: Path
    home: str = "/home/wuying"
    user: str = "wuying"
    hostname: str = "agentbay"
    network: Literal["none", "host"] = "none"
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    binds: Sequence[Bind] = ()
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended.

    Attributes:
        exit_code: As a shell reports it: 128 + N after signal N, 127 not found, 126 found but not startable.
        timed_out: The command was killed because its time was up; the output is what it had written until then.
        truncated: Output beyond the limit was thrown away.
    """

    exit_code: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What the processes of a sandbox use now, its first process (the agent) left out.

    Attributes:
        cpu_seconds: Processor time since the sandbox was made, of ended processes too.
        memory_bytes: Private and shared-memory pages in use; pages of program files are not counted.
        processes: How many there are.
    """

    cpu_seconds: float
    memory_bytes: int
    processes: int
