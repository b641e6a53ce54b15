"""Copies files and directories between this machine and a session, as `cp -r` does."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from agentbay._local_files import check_target
from agentbay.cli.output import escape_control_characters, output
from agentbay.errors import FileError

if TYPE_CHECKING:
    from agentbay import Session, TreeReport
    from agentbay.cli.output import Progress

_TRANSFER_CHUNK_BYTES = 4 << 20
_PLACE_TIMEOUT_SECONDS = 600  # for the command that moves a staged file into place

_STAT_SCRIPT = """\
[ -e {path} ] || exit 44
[ -d {path} ] && echo directory || stat -Lc '%s %a' {path}"""
_PLACE_SCRIPT = """\
set -e; to={path}; case $to in */) mkdir -p "$to";; esac
[ ! -d "$to" ] || to=$to/{name}
[ ! -e "$to" ] || [ -f "$to" ] || {{ echo "$to: Not a regular file" >&2; exit 22; }}
mkdir -p "$(dirname "$to")"; chmod {mode} {staged}; mv -fT {staged} "$to\""""


class CopyLocation(NamedTuple):
    """A path in a session or context, or on this machine without `name`."""

    name: str
    path: str

    @classmethod
    def parse(cls, text: str) -> CopyLocation:
        """Parse NAME:PATH or PATH, where a colon after a slash belongs to the path."""
        name, colon, path = text.partition(":")
        return cls(name, path or ".") if colon and name and "/" not in name and name != "." else cls("", text)

    @property
    def local(self) -> Path:
        return Path(self.path)


def send_path(session: Session, source: Path, target: str) -> TreeReport:
    """Copy a file or a directory into a session."""
    from agentbay import TreeReport

    if source.is_dir():
        return _send_tree(session, source, target)
    staged = _make_staging_path()
    values = {"path": _quote_remote_path(target), "name": shlex.quote(source.resolve().name), "staged": staged}
    try:
        with source.open("rb") as reader:
            size = _send_content(session, reader, staged, source.name)
            mode = f"{os.fstat(reader.fileno()).st_mode & 0o777:o}"
        session.command.run(_PLACE_SCRIPT.format(**values, mode=mode), timeout=_PLACE_TIMEOUT_SECONDS).check()
    except BaseException:
        session.command.run(f"rm -f {staged}")
        raise
    return TreeReport(copied=[source.name], bytes=size)


def _send_tree(session: Session, source: Path, target: str) -> TreeReport:
    if session.command.run(f"[ -d {_quote_remote_path(target)} ]").unwrap().exit_code == 0:
        target = f"{target.rstrip('/')}/{source.resolve().name}"
    with output.progress(f"sending {source}", None) as progress:
        return session.file_system.push(source, target, progress=progress)


def _send_content(session: Session, reader: IO[bytes], staged: str, name: str) -> int:
    total = reader.seek(0, os.SEEK_END)
    reader.seek(0)
    sent = 0
    with output.progress(f"sending {name}", total) as progress:
        while True:
            piece = reader.read(_TRANSFER_CHUNK_BYTES)
            if piece or not sent:  # an empty file needs one write as well
                session.file_system.write_file(staged, piece, "append").unwrap()
            sent += len(piece)
            progress(sent)
            if len(piece) < _TRANSFER_CHUNK_BYTES:
                return sent


def fetch_path(session: Session, source: str, target: Path) -> TreeReport:
    """Copy a file or a directory out of a session.

    Raises:
        FileError: If the source does not exist, or is a directory and the target is "-", standard output.
    """
    from agentbay import TreeReport

    stat = session.command.run(_STAT_SCRIPT.format(path=_quote_remote_path(source))).unwrap()
    if stat.exit_code == 44:
        raise FileError(f"There is no {source!r} in the session.", hint="Relative paths start at its home directory.")
    name = source.rstrip("/").rpartition("/")[2]
    fields = stat.check().stdout.split()
    if fields == ["directory"]:
        if str(target) == "-":
            raise FileError(f"{source!r} is a directory: it cannot go to standard output.")
        place = target / name if target.is_dir() and name not in ("", ".") else target
        return fetch_tree(session, source, place)
    size = int(fields[0])
    with output.progress(f"fetching {name}", size) as progress:
        if str(target) == "-":
            _fetch_content(session, source, sys.stdout.buffer, size, progress)
            sys.stdout.buffer.flush()
        else:
            place = target / name if target.is_dir() else target
            with _atomic_writer(place, int(fields[1], 8)) as writer:
                _fetch_content(session, source, writer, size, progress)
    return TreeReport(copied=[name], bytes=size)


def fetch_tree(session: Session, source: str, target: Path) -> TreeReport:
    """Copy a directory out of a session, without deleting anything locally."""
    with output.progress(f"fetching {source}", None) as progress:
        report = session.file_system.pull(source, target, progress=progress)
    if report.skipped:
        names = ", ".join(map(escape_control_characters, report.skipped))
        output.note(f"Skipped links that lead out of {source}: {names}")
    return report


def _fetch_content(session: Session, path: str, writer: IO[bytes], size: int, progress: Progress) -> None:
    if size <= _TRANSFER_CHUNK_BYTES:
        writer.write(session.file_system.read_file(_strip_home(path), format="bytes").unwrap().content)
        return
    staged, done = _make_staging_path(), 0
    try:
        while done < size:
            cut = f"tail -c +{done + 1} {_quote_remote_path(path)} | head -c {_TRANSFER_CHUNK_BYTES} >{staged}"
            session.command.run(cut, timeout=_PLACE_TIMEOUT_SECONDS).check()
            piece = session.file_system.read_file(staged, format="bytes").unwrap().content
            if not piece:
                raise FileError(f"{path!r} became shorter while it was fetched.")
            writer.write(piece)
            done += len(piece)
            progress(done)
    finally:
        session.command.run(f"rm -f {staged}")


@contextmanager
def _atomic_writer(place: Path, mode: int) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces the target unless an error occurs."""
    check_target(place, overwrite=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, because a rename to another file system is not possible.
    made = tempfile.NamedTemporaryFile(dir=place.parent, prefix=f".{place.name}.", delete=False)  # noqa: SIM115
    try:
        with made:
            yield made
        Path(made.name).chmod(mode & 0o777)
        Path(made.name).replace(place)
    except BaseException:
        Path(made.name).unlink()
        raise


def _make_staging_path() -> str:
    return f"/tmp/agentbay-cp-{secrets.token_hex(8)}"


def _strip_home(path: str) -> str:
    return path[2:] or "." if path.startswith("~/") else path


def _quote_remote_path(path: str) -> str:
    path = _strip_home(path)
    # The commands would take a path that begins with - for an option.
    return shlex.quote(f"./{path}" if path.startswith("-") else path)
