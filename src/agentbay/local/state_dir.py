"""Where a runtime keeps its files: a directory that it has to itself."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import secrets
import tempfile
from pathlib import Path

from agentbay.errors import ConfigurationError
from agentbay.local.sandbox.shared import dirfd

_PREFIX = "agentbay-local-"


class StateDirectory:
    """A directory, locked for as long as this object is open; a temporary one is removed with it."""

    def __init__(self, path: Path, lock: int, *, temporary: bool) -> None:
        self.path, self._lock, self.temporary = path, lock, temporary
        self._trash = path / "trash"
        self._sessions = path / "sessions"
        for directory in (self._trash, self._sessions):
            directory.mkdir(exist_ok=True)
        self._numbers = itertools.count()

    @classmethod
    def open(cls, path: str | None) -> StateDirectory:
        """Take a directory for this runtime alone; without a path, a new one in the directory for temporary files.

        Raises:
            ConfigurationError: Another runtime has it, or it cannot be made.
        """
        try:
            if path is None:
                return cls._open_temporary()
            directory = Path(path).expanduser().resolve()
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if (lock := _try_lock(directory)) is None:
                raise ConfigurationError(
                    f"Another runtime uses the state directory {directory}.",
                    hint="Stop it, or choose another --state-dir.",
                )
            return cls(directory, lock, temporary=False)
        except OSError as error:
            raise ConfigurationError(f"The state directory cannot be used: {error}.") from error

    @classmethod
    def _open_temporary(cls) -> StateDirectory:
        # It gets its name when it is locked: under that name, an unlocked one is a dead runtime's.
        made = Path(tempfile.mkdtemp(prefix="agentbay-new-"))
        lock = _try_lock(made)
        assert lock is not None
        directory = made.with_name(_PREFIX + made.name.removeprefix("agentbay-new-"))
        made.rename(directory)
        return cls(directory, lock, temporary=True)

    def api_key(self) -> tuple[str, Path]:
        """Return the key kept here, made at first, and the file (mode 0600) that holds it."""
        return self._read_or_create_secret("key", "akl-")

    def secret(self, name: str) -> bytes:
        """Return a secret kept here, made at first, that never leaves this runtime."""
        return self._read_or_create_secret(f"secret-{name}", "")[0].encode()

    def _read_or_create_secret(self, name: str, prefix: str) -> tuple[str, Path]:
        file = self.path / name
        try:
            fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            if kept := file.read_text(encoding="ascii").strip():
                return kept, file
            fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)  # its maker was killed before it had written
        made = f"{prefix}{secrets.token_hex(32)}"
        with open(fd, "w", encoding="ascii") as writer:
            writer.write(made + "\n")
        return made, file

    def new_session(self, session_id: str) -> Path:
        """Make the directory of a session."""
        directory = self._sessions / session_id
        directory.mkdir(mode=0o700)
        return directory

    def trash_leftovers(self) -> list[Path]:
        """Put out of sight what an earlier runtime, killed, has left here, and return it; `erase` it at leisure."""
        for directory in self._sessions.iterdir():
            self.move_to_trash(directory)
        return list(self._trash.iterdir())

    def remove_leftovers(self, leftovers: list[Path]) -> None:
        """Erase leftovers, and temporary directories of runtimes that are dead."""
        for directory in leftovers:
            remove_tree(directory)
        _remove_stale_temporaries(Path(tempfile.gettempdir()))

    def close(self) -> None:
        """Give the directory back: a temporary one is removed, of another only what belongs to sessions."""
        for directory in [self.path] if self.temporary else self.trash_leftovers():
            remove_tree(directory)
        os.close(self._lock)

    def move_to_trash(self, directory: Path) -> Path:
        """Put the directory of a session out of sight, and return it; `erase` it at leisure."""
        target = self._trash / f"{directory.name}-{next(self._numbers)}-{secrets.token_hex(4)}"
        directory.rename(target)
        return target


def _try_lock(directory: Path) -> int | None:
    """Lock a directory's lock file, or return None if it is locked; the lock ends with the process that holds it."""
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _remove_stale_temporaries(parent: Path) -> None:
    for directory in parent.glob(_PREFIX + "*"):
        with contextlib.suppress(FileNotFoundError):  # another runtime may sweep too
            if directory.lstat().st_uid == os.getuid() and (directory / "lock").is_file():
                _remove_if_unlocked(directory)


def _remove_if_unlocked(directory: Path) -> None:
    lock = _try_lock(directory)
    if lock is not None:
        remove_tree(directory)
        os.close(lock)


def remove_tree(directory: Path) -> None:
    """Remove a tree of ours, of any depth, though directories below forbid it and killed processes are still dying."""
    fd = os.open(directory, dirfd.DIRECTORY_OPEN_FLAGS)
    try:
        for name in os.listdir(fd):
            dirfd.remove(name, fd)
    finally:
        os.close(fd)
    directory.rmdir()
