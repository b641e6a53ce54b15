"""Local directories: scanned, packed into archives and unpacked.

All of it blocks: callers use `async_run_blocking`.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import secrets
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

from ._transport.tree_plan import KIND_DIRECTORY, KIND_FILE, KIND_LINK, TEMPORARY_PREFIX, Tree, TreeEntry
from .errors import FileError
from .models.tree import TreeProgress

TreeProgressCallback = Callable[[TreeProgress], object]
_COPY_BUFFER_BYTES = 1 << 20  # copied at once


def scan_tree(root: Path, ignored: Callable[[str, bool], bool], *, digests: bool) -> Tree:
    """List everything below a directory, except what is ignored.

    Raises:
        FileError: It cannot be read.
    """
    if root.exists() and not root.is_dir():
        raise FileError(f"{root} is not a directory.")
    tree: Tree = {}
    pending = [""]
    while pending:
        above = pending.pop()
        try:
            found = list(os.scandir(root / above))
        except OSError as error:
            raise FileError(f"{error.filename}: {error.strerror}") from error
        for entry in found:
            path = f"{above}/{entry.name}" if above else entry.name
            is_directory = entry.is_dir(follow_symlinks=False)
            if entry.name.startswith(TEMPORARY_PREFIX) or ignored(path, is_directory):
                continue
            described = _make_entry(Path(entry.path), entry.stat(follow_symlinks=False), digests)
            if described is not None:
                tree[path] = described
            if is_directory:
                pending.append(path)
    return tree


def _make_entry(path: Path, status: os.stat_result, digests: bool) -> TreeEntry | None:
    mode, time = stat.S_IMODE(status.st_mode) & 0o777, status.st_mtime_ns
    if stat.S_ISDIR(status.st_mode):
        return TreeEntry(KIND_DIRECTORY, 0, time, mode)
    if stat.S_ISLNK(status.st_mode):
        return TreeEntry(KIND_LINK, 0, time, mode, str(path.readlink()))
    if not stat.S_ISREG(status.st_mode):
        return None
    return TreeEntry(KIND_FILE, status.st_size, time, mode, "", _digest(path) if digests else "")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Archive:
    """Some files of a directory, packed into a temporary archive.

    The same files make the same archive, so its digest names it.
    """

    def __init__(self, root: Path, paths: Iterable[str]) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed with this
        try:
            with (
                gzip.GzipFile("", "wb", 1, self._file, mtime=0) as zipped,
                tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
            ):
                for path in paths:
                    _add_member(archive, root, path)
            self.size = self._file.tell()
            self._file.seek(0)
            self.digest = hashlib.file_digest(self._file, "sha256").hexdigest()
        except BaseException:
            self._file.close()
            raise

    def read(self, offset: int, size: int) -> bytes:
        """Return a part of the archive."""
        self._file.seek(offset)
        return self._file.read(size)

    def close(self) -> None:
        """Remove the archive."""
        self._file.close()


def _add_member(archive: tarfile.TarFile, root: Path, path: str) -> None:
    local = root / path
    try:
        status = local.lstat()
        member = tarfile.TarInfo(path)
        member.mtime = status.st_mtime_ns / 1e9  # pyright: ignore[reportAttributeAccessIssue]
        member.mode = stat.S_IMODE(status.st_mode) & 0o777
        if stat.S_ISDIR(status.st_mode):
            member.type, member.mode = tarfile.DIRTYPE, member.mode | 0o700
            archive.addfile(member)
        elif stat.S_ISLNK(status.st_mode):
            member.type, member.linkname = tarfile.SYMTYPE, str(local.readlink())
            archive.addfile(member)
        else:
            with local.open("rb") as file:
                member.size = os.fstat(file.fileno()).st_size
                archive.addfile(member, file)
    except OSError as error:
        raise FileError(f"{local}: {error.strerror or error}") from error


def unpack_archive(root: Path, file: IO[bytes], wanted: set[str]) -> list[str]:
    """Unpack an archive, replacing each file atomically by renaming.

    Returns the links that were not made.

    Raises:
        FileError: It cannot be written, or holds what was not asked for.
    """
    skipped = []
    try:
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:gz") as archive:
            for member in archive:
                path = member.name.removeprefix("./")
                if path not in wanted:
                    raise FileError(f"The session sends what was not asked for: {path!r}")
                if not _extract_member(root, path, member, archive):
                    skipped.append(path)
    except OSError as error:
        raise FileError(f"{error.filename or root}: {error.strerror or error}") from error
    except tarfile.TarError as error:
        raise FileError(f"What the session sends is no archive: {error}") from error
    return skipped


def _extract_member(root: Path, path: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> bool:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    for above in target.parents:
        if above == root:
            break
        if above.is_symlink():
            raise FileError(f"{above} is a link; nothing is written behind it.")
    if member.isdir():
        target.mkdir(exist_ok=True)
        return True
    if member.issym() and not _stays_inside(path, member.linkname):
        return False
    scratch = target.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")
    try:
        if member.issym():
            scratch.symlink_to(member.linkname)
        else:
            content = archive.extractfile(member)
            if content is None:
                raise FileError(f"The session sends something that is no file: {path!r}")
            with scratch.open("xb") as writer:
                shutil.copyfileobj(content, writer, _COPY_BUFFER_BYTES)
            scratch.chmod(member.mode & 0o777)
            time = round(float(member.mtime) * 1e9)
            os.utime(scratch, ns=(time, time))
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)
    return True


def _stays_inside(path: str, target: str) -> bool:
    where = os.path.normpath(os.path.join(os.path.dirname(path), target))  # noqa: PTH118, PTH120
    return not target.startswith("/") and where != ".." and not where.startswith("../")


def delete_paths(root: Path, paths: Iterable[str]) -> None:
    """Remove files and directories.

    Raises:
        FileError: It cannot be done.
    """
    for path in paths:
        local = root / path
        try:
            if local.is_dir() and not local.is_symlink():
                shutil.rmtree(local)
            else:
                local.unlink(missing_ok=True)
        except OSError as error:
            raise FileError(f"{local}: {error.strerror or error}") from error
