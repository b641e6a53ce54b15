"""The state directory, where one runtime keeps its files."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import secrets
import stat
import struct
import tempfile
from pathlib import Path

from agentbay.errors import ConfigurationError
from agentbay.local.sandbox.shared import dirfd
from agentbay.local.sandbox.shared.fd_io import closing_fd

_PREFIX = "agentbay-local-"
_LOCK = "lock"
_GET_FLAGS, _SET_FLAGS, _TOP_OF_HIERARCHIES = 0x80086601, 0x40086602, 0x20000  # linux/fs.h; `chattr +T`


class StateDirectory:
    """A directory that is locked while this object is open.

    A temporary one is removed when it is closed.
    """

    def __init__(self, path: Path, lock: int, *, temporary: bool) -> None:
        self.path, self._lock, self.temporary = path, lock, temporary
        self._trash = path / "trash"
        self._sessions = path / "sessions"
        for directory in (self._trash, self._sessions):
            directory.mkdir(exist_ok=True)
        spread_directories(self._sessions)
        self._numbers = itertools.count()

    @classmethod
    def open(cls, path: str | None) -> StateDirectory:
        """Open and lock a directory, or, for None, a new temporary one.

        Raises:
            ConfigurationError: Another runtime uses it, or it cannot be created.
        """
        directory = None
        try:
            if path is None:
                return cls._open_temporary()
            directory = Path(path).expanduser().resolve()
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_owner(directory)
            if (lock := _try_lock(directory)) is None:
                raise ConfigurationError(
                    f"Another runtime uses the state directory {directory}.",
                    hint="Stop it, or choose another --state-dir.",
                )
            return cls(directory, lock, temporary=False)
        except OSError as error:
            raise ConfigurationError(_describe_refusal(directory, error)) from error

    @classmethod
    def _open_temporary(cls) -> StateDirectory:
        # Renamed once it is locked: under the final name, an unlocked directory is one that a dead runtime left.
        new = Path(tempfile.mkdtemp(prefix="agentbay-new-"))
        lock = _try_lock(new)
        assert lock is not None
        directory = new.with_name(_PREFIX + new.name.removeprefix("agentbay-new-"))
        new.rename(directory)
        return cls(directory, lock, temporary=True)

    def api_key(self) -> tuple[str, Path]:
        """Return the API key, created on first use, and its file of mode 0600."""
        return self._read_or_create_secret("key", "akl-")

    def secret(self, name: str) -> bytes:
        """Return the secret of this name, created on first use."""
        return self._read_or_create_secret(f"secret-{name}", "")[0].encode()

    def _read_or_create_secret(self, name: str, prefix: str) -> tuple[str, Path]:
        file = self.path / name
        try:
            fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            if secret := file.read_text(encoding="ascii").strip():
                return secret, file
            fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)  # a runtime was killed between creating and writing it
        secret = f"{prefix}{secrets.token_hex(32)}"
        with open(fd, "w", encoding="ascii") as writer:
            writer.write(secret + "\n")
        return secret, file

    def new_session(self, session_id: str) -> Path:
        """Create the directory of a session."""
        directory = self._sessions / session_id
        directory.mkdir(mode=0o700)
        return directory

    def rename_session(self, directory: Path, session_id: str) -> Path:
        """Rename a session's directory for another session id."""
        return directory.rename(self._sessions / session_id)

    def unused_name(self) -> str:
        """Return a name that no session has."""
        return f"unused-{next(self._numbers)}"

    def trash_leftovers(self) -> list[Path]:
        """Move leftovers of a killed runtime to the trash, and list it."""
        for directory in self._sessions.iterdir():
            self.move_to_trash(directory)
        return list(self._trash.iterdir())

    def remove_leftovers(self, leftovers: list[Path]) -> None:
        """Remove leftovers, and temporary directories of dead runtimes."""
        for directory in leftovers:
            remove_tree(directory)
        _remove_stale_temporaries(Path(tempfile.gettempdir()))

    def close(self) -> None:
        """Remove the directory if it is temporary, else the directories of sessions in it."""
        for directory in [self.path] if self.temporary else self.trash_leftovers():
            remove_tree(directory)
        # Unlocked last: an unlocked directory may be opened, or removed as a leftover, by another runtime.
        os.close(self._lock)

    def move_to_trash(self, directory: Path) -> Path:
        """Move the directory of a session to the trash, and return its new path.

        Removing it takes long, and its name must be free at once.
        """
        target = self._trash / f"{directory.name}-{next(self._numbers)}-{secrets.token_hex(4)}"
        directory.rename(target)
        return target


def _describe_refusal(directory: Path | None, error: OSError) -> str:
    place = f"The state directory {directory}" if directory else "A temporary state directory"
    if isinstance(error, FileExistsError):
        return f"{place} cannot be used: it is a file, and a directory is wanted."
    at = f" ({error.filename})" if error.filename not in (None, str(directory)) else ""
    return f"{place} cannot be used: {error.strerror or error}{at}."


def _check_owner(directory: Path) -> None:
    """Raise ConfigurationError if another user could replace what is in a directory."""
    status = directory.stat()
    if status.st_uid not in (os.geteuid(), 0):
        raise ConfigurationError(
            f"The state directory {directory} belongs to another user, who could replace the files in it.",
            hint="Choose another --state-dir, or change its owner.",
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            f"Other users may write into the state directory {directory}, and could replace the files in it.",
            hint=f"Forbid it: chmod go-w {directory}",
        )


def _try_lock(directory: Path) -> int | None:
    """Lock a directory and return the descriptor, or None if it is locked.

    The kernel drops the lock when the process that holds it ends.
    """
    fd = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _remove_stale_temporaries(parent: Path) -> None:
    for directory in parent.glob(_PREFIX + "*"):
        with contextlib.suppress(FileNotFoundError):  # another runtime may remove it at the same time
            # Another user could have put a directory or a link of this name into the shared /tmp.
            if directory.lstat().st_uid == os.getuid() and (directory / _LOCK).is_file():
                _remove_if_unlocked(directory)


def _remove_if_unlocked(directory: Path) -> None:
    lock = _try_lock(directory)
    if lock is not None:
        remove_tree(directory)
        os.close(lock)


def spread_directories(above: Path) -> None:
    """Have ext4 keep the directories in a directory apart from each other.

    Side by side they share a group of inodes, and for each new file ext4 passes over all inodes of the group that were
    freed in the last minutes. Where sessions come and go, this took more time than all the rest.
    """
    fd = os.open(above, dirfd.DIRECTORY_OPEN_FLAGS)
    with closing_fd(fd), contextlib.suppress(OSError):  # other file systems do without
        (flags,) = struct.unpack("I", fcntl.ioctl(fd, _GET_FLAGS, bytes(4)))
        fcntl.ioctl(fd, _SET_FLAGS, struct.pack("I", flags | _TOP_OF_HIERARCHIES))


def remove_tree(directory: Path) -> None:
    """Remove a directory tree of any depth.

    It works although modes of directories forbid it, and while dying processes still write into it.
    """
    with closing_fd(os.open(directory, dirfd.DIRECTORY_OPEN_FLAGS)) as fd:
        # The lock goes last: what a killed removal leaves is known by it, and removed by the next runtime.
        for name in sorted(os.listdir(fd), key=_LOCK.__eq__):
            dirfd.remove(name, fd)
    directory.rmdir()
