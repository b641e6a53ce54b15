"""Files and directories between this machine and a session, of any size: in pieces, a directory as an archive."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from agentbay.cli.screen import Progress, screen
from agentbay.errors import FileError

if TYPE_CHECKING:
    from agentbay import Session

_PIECE = 4 << 20  # bytes
_SECONDS = 600  # that packing and unpacking may take

_LOOK = """\
[ -e {path} ] || exit 44
[ -d {path} ] && echo directory || stat -Lc '%s %a' {path}"""
_PLACE_FILE = """\
set -e; to={path}; case $to in */) mkdir -p "$to";; esac
[ ! -d "$to" ] || to=$to/{name}
mkdir -p "$(dirname "$to")"; chmod {mode} {staged}; mv -fT {staged} "$to\""""
_PLACE_TREE = """\
set -e; to={path}; [ ! -d "$to" ] || to=$to/{name}
mkdir -p "$to"; tar -xzf {staged} -C "$to"; rm {staged}"""


class Place(NamedTuple):
    """Where something is: in the session or context `name`, or on this machine if that is ""."""

    name: str
    path: str

    @classmethod
    def read(cls, text: str) -> Place:
        """Read NAME:PATH or PATH; a colon after a slash is part of a path."""
        name, colon, path = text.partition(":")
        return cls(name, path or ".") if colon and name and "/" not in name and name != "." else cls("", text)

    @property
    def local(self) -> Path:
        return Path(self.path)


# ── Into the session ────────────────────────────────────────────────────────────────────────────────────────────────


def send(session: Session, source: Path, target: str) -> int:
    """Copy a file or a directory into a session, as `cp -r` would; return the bytes that were sent."""
    staged = _staged()
    here = source.resolve()
    facts = {"path": _quoted(target), "name": shlex.quote(here.name), "staged": staged}
    try:
        if source.is_dir():
            with tempfile.TemporaryFile() as archive:
                with screen.working(f"packing {source}"), tarfile.open(fileobj=archive, mode="w:gz") as writer:
                    writer.add(here, ".")
                size = _send(session, archive, staged, source.name)
            place = _PLACE_TREE.format(**facts)
        else:
            with source.open("rb") as reader:
                size = _send(session, reader, staged, source.name)
                mode = f"{os.fstat(reader.fileno()).st_mode & 0o777:o}"
            place = _PLACE_FILE.format(**facts, mode=mode)
        session.command.run(place, _SECONDS * 1000).check()
    except BaseException:
        session.command.run(f"rm -f {staged}")
        raise
    return size


def _send(session: Session, reader: IO[bytes], staged: str, name: str) -> int:
    total = reader.seek(0, os.SEEK_END)
    reader.seek(0)
    sent = 0
    with screen.progress(f"sending {name}", total) as progress:
        while True:
            piece = reader.read(_PIECE)
            if piece or not sent:  # an empty file is made too
                session.file_system.write_file(staged, piece, "append").unwrap()
            sent += len(piece)
            progress(sent)
            if len(piece) < _PIECE:
                return sent


# ── Out of the session ──────────────────────────────────────────────────────────────────────────────────────────────


def fetch(session: Session, source: str, target: Path) -> int:
    """Copy a file or a directory out of a session, as `cp -r` would; return the bytes that came.

    Raises:
        FileError: There is no such thing, or "-", standard output, was asked to take a directory.
    """
    look = session.command.run(_LOOK.format(path=_quoted(source))).unwrap()
    if look.exit_code == 44:
        raise FileError(f"There is no {source!r} in the session.", hint="Relative paths start at its home directory.")
    name = source.rstrip("/").rpartition("/")[2]
    told = look.check().stdout.split()
    if told == ["directory"]:
        if str(target) == "-":
            raise FileError(f"{source!r} is a directory: it cannot go to standard output.")
        place = target / name if target.is_dir() and name not in ("", ".") else target
        return fetch_packed(session, f"cd {_quoted(source)} && tar -czf {{archive}} .", place)
    size = int(told[0])
    with screen.progress(f"fetching {name}", size) as progress:
        if str(target) == "-":
            _fetch(session, source, sys.stdout.buffer, size, progress)
            sys.stdout.buffer.flush()
            return size
        place = target / name if target.is_dir() else target
        with _whole(place, int(told[1], 8)) as writer:
            _fetch(session, source, writer, size, progress)
    return size


def fetch_packed(session: Session, pack: str, target: Path) -> int:
    """Have a command in the session make `{archive}`, a .tar.gz, and unpack that here."""
    staged = _staged()
    try:
        with screen.working("packing"):
            session.command.run(pack.format(archive=staged), _SECONDS * 1000).check()
        size = int(session.command.run(f"stat -c %s {staged}").check().stdout)
        with tempfile.TemporaryFile() as archive:
            with screen.progress("fetching", size) as progress:
                _fetch(session, staged, archive, size, progress)
            archive.seek(0)
            target.mkdir(parents=True, exist_ok=True)
            with tarfile.open(fileobj=archive, mode="r:gz") as reader:
                # what a session packed may have been made by anyone: nothing lands outside the target
                reader.extractall(target, filter="data")
    except tarfile.TarError as error:
        raise FileError(f"What the session packed cannot be unpacked: {error}.") from error
    finally:
        session.command.run(f"rm -f {staged}")
    return size


def _fetch(session: Session, path: str, writer: IO[bytes], size: int, progress: Progress) -> None:
    if size <= _PIECE:
        writer.write(session.file_system.read_file(_home(path), format="bytes").unwrap().content)
        return
    staged, done = _staged(), 0
    try:
        while done < size:
            cut = f"tail -c +{done + 1} {_quoted(path)} | head -c {_PIECE} >{staged}"
            session.command.run(cut, _SECONDS * 1000).check()
            piece = session.file_system.read_file(staged, format="bytes").unwrap().content
            if not piece:
                raise FileError(f"{path!r} became shorter while it was fetched.")
            writer.write(piece)
            done += len(piece)
            progress(done)
    finally:
        session.command.run(f"rm -f {staged}")


@contextmanager
def _whole(place: Path, mode: int) -> Iterator[IO[bytes]]:
    """Open a file that is there whole at the end, or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    made = tempfile.NamedTemporaryFile(dir=place.parent, prefix=f".{place.name}.", delete=False)  # noqa: SIM115
    try:
        with made:
            yield made
        Path(made.name).chmod(mode & 0o777)
        Path(made.name).replace(place)
    except BaseException:
        Path(made.name).unlink()
        raise


def _staged() -> str:
    return f"/tmp/agentbay-cp-{secrets.token_hex(8)}"


def _home(path: str) -> str:
    return path[2:] or "." if path.startswith("~/") else path


def _quoted(path: str) -> str:
    path = _home(path)
    return shlex.quote(f"./{path}" if path.startswith("-") else path)
