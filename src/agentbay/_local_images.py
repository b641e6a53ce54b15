"""Images on this machine, before they are sent.

All of it blocks: callers use `async_run_blocking`.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ._transport.ignore_rules import dockerignore_matcher
from .errors import FileError, InvalidArgumentError
from .models.image_recipe import Image

_SUFFIXES = re.compile(r"(\.(tar|tgz|gz|xz|bz2|zst|oci))+$")
_UNUSUAL = re.compile(r"[^a-z0-9._-]+")


def archive_name(path: Path) -> str:
    """Return a name for the image in a file or a folder."""
    name = _UNUSUAL.sub("-", _SUFFIXES.sub("", path.resolve().name.lower())).strip("-._")
    return name or "image"


class BuildSource:
    """What a client sends for a build.

    Args:
        dockerfile: A path, a text of several lines, or an `Image`.
        context: The folder of its files, or None.

    Attributes:
        text: Of the Dockerfile.

    Raises:
        FileError: The Dockerfile cannot be read, or the context is no folder.
        InvalidArgumentError: The text cannot be sent.
    """

    def __init__(self, dockerfile: str | os.PathLike[str] | Image, context: str | os.PathLike[str] | None) -> None:
        self._copies: Sequence[tuple[str, str]] = ()
        self._path: Path | None = None
        if isinstance(dockerfile, Image):
            self.text, self._copies = dockerfile.dockerfile, dockerfile.copies
        elif isinstance(dockerfile, str) and "\n" in dockerfile:
            self.text = dockerfile
        else:
            self._path = Path(dockerfile)
            self.text = _read_dockerfile(self._path)
        _check_dockerfile(self.text)
        self._context = Path(context) if context is not None else self._path.parent if self._path else None
        if self._context is not None and not self._context.is_dir():
            raise FileError(f"{self._context} is no folder, as the context of a build must be")

    def pack(self, archive: Path) -> None:
        """Write the files of the context into a tar archive.

        Raises:
            FileError: One cannot be read.
        """
        try:
            with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as writer:
                if self._context is not None:
                    for name in _context_names(self._context, self._path):
                        writer.add(self._context / name, name, recursive=False)
                for name, path in self._copies:
                    writer.add(path, name)
        except OSError as error:
            raise FileError(f"{error.filename or self._context}: {error.strerror or error}") from error


def _read_dockerfile(path: Path) -> str:
    try:
        return _read_text(path)
    except FileError as error:
        if not path.exists():
            error.hint = "What has no line end is taken for a path: end the text of a Dockerfile with one."
        raise


def _check_dockerfile(text: str) -> None:
    if "\0" in text:
        raise InvalidArgumentError("dockerfile must be a text without NUL characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, such as half an emoji
        place = f"{text[error.start]!a} at position {error.start}"
        raise InvalidArgumentError(f"dockerfile must be a text of whole characters, not one with {place}") from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is no text in UTF-8") from error
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from error


def _context_names(context: Path, dockerfile: Path | None) -> Iterator[str]:
    """Yield the paths below a context that are sent."""
    ignored, has_exceptions = _read_rules(context, dockerfile)

    def fail(error: OSError) -> None:
        raise error

    for directory, folders, files in os.walk(context, onerror=fail):
        start = Path(directory).relative_to(context)
        for name in sorted([*folders, *files]):
            path = (start / name).as_posix()
            if not ignored(path):
                yield path
            elif name in folders and not has_exceptions:
                folders.remove(name)


def _read_rules(context: Path, dockerfile: Path | None) -> tuple[Callable[[str], bool], bool]:
    """Return which paths are left out, and whether there are exceptions."""
    places = [context / ".dockerignore"]
    if dockerfile is not None:
        places.insert(0, dockerfile.with_name(f"{dockerfile.name}.dockerignore"))
    rules = next((_read_text(place).splitlines() for place in places if place.is_file()), [])
    return dockerignore_matcher(rules), any(rule.startswith("!") for rule in rules)


def pack_folder(folder: Path, archive: Path) -> None:
    """Write a folder into a tar archive, as it is.

    Raises:
        FileError: If something in it cannot be read.
    """
    try:
        with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as writer:
            writer.add(folder, ".")
    except OSError as error:
        raise FileError(f"{error.filename or folder}: {error.strerror or error}") from error
