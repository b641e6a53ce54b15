"""What can go wrong with a sandbox.

SandboxError
├── IsolationUnavailable    this machine cannot isolate; `missing` says what is in the way and the way out
├── SandboxGone             the sandbox is closed, or its first process died
├── NotGiven                a terminal or a socket could not be made, or its program not be started
└── FileOperationFailed     (also OSError) a file operation inside the sandbox was refused
"""

from __future__ import annotations

from collections.abc import Sequence


class SandboxError(Exception):
    """Base of what this room raises on purpose."""


class IsolationUnavailable(SandboxError):
    """This machine cannot isolate a sandbox; `missing` holds one sentence for each obstacle, with the way out."""

    def __init__(self, missing: Sequence[str]) -> None:
        super().__init__(missing)
        self.missing = list(missing)

    def __str__(self) -> str:
        return " ".join(["This machine cannot isolate sandboxes.", *self.missing, "See also: agentbay local doctor."])


class SandboxGone(SandboxError):
    """The sandbox no longer exists."""


class ResourceCreationFailed(SandboxError):
    """A terminal or a socket could not be made, or the program for it not be started; says why in a shell's words."""


class FileOperationFailed(SandboxError, OSError):
    """A file operation inside the sandbox was refused; `errno`, `strerror` and `filename` as in OSError."""

    def __init__(self, errno: int, strerror: str, path: str) -> None:
        super().__init__(errno, strerror, path)

    @property
    def path(self) -> str:
        """The path as the sandbox saw it."""
        return str(self.filename)
