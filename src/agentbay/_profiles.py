"""Profiles: keys with their services, in a file of their owner."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .errors import ConfigurationError

DEFAULT_PROFILE = "default"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Profile(NamedTuple):
    """A key, and the service that it is for.

    `repr` leaves the key out.

    Attributes:
        endpoint: As in `Config`; "" is that of the region.
        region_id: As in `Config`; "" is the usual one.
    """

    api_key: str
    endpoint: str = ""
    region_id: str = ""

    def __repr__(self) -> str:
        return f"Profile(endpoint={self.endpoint!r}, region_id={self.region_id!r})"


class ProfileFile:
    """The file of profiles.

    Args:
        path: The file; None is that of this user.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or _user_path()

    def load(self) -> dict[str, Profile]:
        """Return the profiles by name.

        Raises:
            ConfigurationError: The file cannot be used; says why.
        """
        found = self._read().get("profiles")
        return {name: _to_profile(fields) for name, fields in found.items()} if isinstance(found, dict) else {}

    def get(self, name: str) -> Profile:
        """Return a profile.

        Raises:
            ConfigurationError: There is no such profile, or the file cannot be used.
        """
        profiles = self.load()
        if name not in profiles:
            known = f"There are {', '.join(profiles)}." if profiles else "There are none yet."
            message = f"There is no profile {name!r:.80}. {known}"
            raise ConfigurationError(message, hint=f"Make it: agentbay login {name:.80}")
        return profiles[name]

    def current(self) -> str:
        """Return the name of the profile that commands use without further words, or ""."""
        content = self._read()
        name, profiles = content.get("current"), content.get("profiles")
        return name if isinstance(name, str) and isinstance(profiles, dict) and name in profiles else ""

    def save(self, name: str, profile: Profile) -> None:
        """Write a profile, which becomes the current one.

        Raises:
            ConfigurationError: The name or the file cannot be used.
        """
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"{name!r:.80} is no name of a profile: letters, digits, '.', '_' and '-', at most 64."
            )
        with self._changing():
            kept = {known: found._asdict() for known, found in self.load().items()}
            self._write({"current": name, "profiles": {**kept, name: profile._asdict()}})

    def use(self, name: str) -> None:
        """Make a profile the current one.

        Raises:
            ConfigurationError: There is no such profile, or the file cannot be used.
        """
        with self._changing():
            self.get(name)
            self._write({**self._read(), "current": name})

    def remove(self, name: str) -> None:
        """Remove a profile with its key.

        Raises:
            ConfigurationError: There is no such profile, or the file cannot be used.
        """
        with self._changing():
            self.get(name)
            content = self._read()
            del content["profiles"][name]
            self._write(content)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Let one program at a time change the file."""
        if sys.platform == "win32":
            yield
            return
        import fcntl

        with self._explain_write():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def _explain_write(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigurationError(f"The profiles cannot be written to {self.path}: {error.strerror}.") from error

    def _read(self) -> dict[str, Any]:
        try:
            with self.path.open("rb") as file:
                is_open_to_others = os.name == "posix" and os.fstat(file.fileno()).st_mode & _OTHERS
                data = file.read()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigurationError(f"The profiles in {self.path} cannot be read: {error.strerror}.") from error
        if is_open_to_others:
            raise ConfigurationError(
                f"Other users can read the keys in {self.path}.", hint=f"Forbid it: chmod 600 {self.path}"
            )
        try:
            content = json.loads(data)
        except (ValueError, RecursionError):
            # Without its cause, whose text may show what the file holds.
            raise ConfigurationError(f"The profiles in {self.path} are no JSON: repair or remove the file.") from None
        return content if isinstance(content, dict) else {}

    def _write(self, content: dict[str, Any]) -> None:
        """Replace the file in one step.

        A crash leaves the old or the new one.
        """
        with self._explain_write():
            path = Path(os.path.realpath(self.path))  # a link, such as into a folder of settings, stays one
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(fd, "w", encoding="utf-8") as file:
                    json.dump(content, file, indent=2)
                beside.replace(path)
            except BaseException:
                # The error that is on its way says more than one of the removal.
                with contextlib.suppress(OSError):
                    beside.unlink()
                raise


def _user_path() -> Path:
    """Return the path of the user's file.

    Raises:
        ConfigurationError: Nothing says where the user's home is.
    """
    named = os.environ.get("APPDATA" if os.name == "nt" else "XDG_CONFIG_HOME", "")
    try:
        # The XDG specification has relative paths ignored: keys would lie wherever a program happens to run.
        folder = Path(named) if Path(named).is_absolute() else Path.home() / ".config"
    except RuntimeError:
        raise ConfigurationError("Nothing tells where the profiles of this user are.", hint="Set HOME.") from None
    return folder / "agentbay" / "profiles.json"


def _to_profile(fields: object) -> Profile:
    known = fields if isinstance(fields, dict) else {}
    return Profile(*(str(known.get(name) or "") for name in Profile._fields))
