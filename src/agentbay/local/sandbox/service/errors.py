"""Errors of sandboxes.

SandboxError
├── IsolationUnavailable    this machine cannot isolate; `missing` names the obstacles and the ways out
├── OverlayUnavailable      this machine cannot mount layers over each other
├── WritableUnavailable     this machine cannot make a directory of the system writable
├── SandboxGone             the sandbox is closed, or its process 1 died
├── ResourceCreationFailed  a terminal or a socket could not be created, or its program not be started
└── FileOperationFailed     (also OSError) a file operation inside the sandbox failed
    └── DirectoryNotEntered a command could not be started in its working directory
"""

from __future__ import annotations

from collections.abc import Sequence


class SandboxError(Exception):
    """Base of the errors of this package."""


class IsolationUnavailable(SandboxError):
    """This machine cannot isolate a sandbox.

    `missing` has one sentence for each obstacle, with the way out.
    """

    def __init__(self, missing: Sequence[str]) -> None:
        super().__init__(missing)
        self.missing = list(missing)

    def __str__(self) -> str:
        return " ".join(["This machine cannot isolate sandboxes.", *self.missing, "See also: agentbay local doctor."])


class OverlayUnavailable(SandboxError):
    """This machine cannot mount layers over each other."""


class WritableUnavailable(SandboxError):
    """This machine cannot make a directory of the system writable."""


class SandboxGone(SandboxError):
    """The sandbox no longer exists."""


class ResourceCreationFailed(SandboxError):
    """A terminal or a socket could not be created, or a program not started."""


class FileOperationFailed(SandboxError, OSError):
    """A file operation inside the sandbox failed.

    `errno`, `strerror` and `filename` as in OSError.
    """

    def __init__(self, errno: int, strerror: str, path: str) -> None:
        super().__init__(errno, strerror, path)

    @property
    def path(self) -> str:
        """The path inside the sandbox."""
        return str(self.filename)


class DirectoryNotEntered(FileOperationFailed):
    """A command could not be started in its working directory."""
