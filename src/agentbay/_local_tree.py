"""Local directories: scanned, and packed into archives.

All of it blocks: callers use `async_run_blocking`.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import IO

from ._local_sparse import as_member
from ._regular_files import open_regular
from ._transport.file_errors import make_file_error, raise_os_error
from ._transport.tree_plan import KIND_DIRECTORY, KIND_FILE, KIND_LINK, TreeEntry, TreeScan, iter_parents
from .models.tree import TreeProgress

TreeProgressCallback = Callable[[TreeProgress], object]
_KIND_OTHER = "o"  # a FIFO, a socket or a device


def scan_tree(root: Path, ignored: Callable[[str, bool], bool], *, digests: bool) -> TreeScan:
    """List everything below a directory, except what is ignored.

    Entries that vanish meanwhile are left out.

    Raises:
        FileError: It cannot be read.
    """
    if root.exists() and not root.is_dir():
        raise make_file_error(f"{root} is not a directory.", number=errno.ENOTDIR, path=str(root))
    scan = TreeScan(ignored)
    pending = [""]
    while pending:
        above = pending.pop()
        try:
            found = list(os.scandir(root / above))
        except FileNotFoundError:
            # It was removed since its parent was listed, like a directory that was never there.
            continue
        except OSError as error:
            raise_os_error(error, error.filename)
        for entry in found:
            path = f"{above}/{entry.name}" if above else entry.name
            described = _describe(entry)
            if described is not None and scan.add(path, described) and described.kind == KIND_DIRECTORY:
                pending.append(path)
    if digests:
        _add_digests(root, scan)
    return scan


def _describe(entry: os.DirEntry[str]) -> TreeEntry | None:
    try:
        status = entry.stat(follow_symlinks=False)
        mode, time = stat.S_IMODE(status.st_mode) & 0o777, status.st_mtime_ns
        if stat.S_ISDIR(status.st_mode):
            return TreeEntry(KIND_DIRECTORY, 0, time, mode)
        if stat.S_ISLNK(status.st_mode):
            return TreeEntry(KIND_LINK, 0, time, mode, str(Path(entry.path).readlink()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise_os_error(error, entry.path)
    return TreeEntry(KIND_FILE if stat.S_ISREG(status.st_mode) else _KIND_OTHER, status.st_size, time, mode)


def _add_digests(root: Path, scan: TreeScan) -> None:
    for path, entry in list(scan.entries.items()):
        if entry.kind == KIND_FILE:
            try:
                with open_regular(root / path) as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except FileNotFoundError:
                del scan.entries[path]
                continue
            except OSError as error:
                raise_os_error(error, root / path)
            scan.entries[path] = entry._replace(digest=digest)


class Archive:
    """Some files of a directory, packed into a temporary archive.

    The same files make the same archive, so its digest names it.

    Attributes:
        missing: Paths that vanished before they could be packed.
        size: Bytes of the archive.
        digest: Its SHA-256, in hexadecimal.
    """

    def __init__(self, root: Path, paths: Iterable[str], *, is_zipped: bool = True) -> None:
        self.missing: set[str] = set()
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed with this
        try:
            with (
                # Neither a name nor a time in the header, so that the same files make the same bytes.
                gzip.GzipFile("", "wb", 1, self._file, mtime=0) if is_zipped else nullcontext(self._file) as output,
                tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive,
            ):
                added: set[str] = set()
                for path in paths:
                    # with its parents, since the session gives every directory the mode that it has in the archive
                    for each in reversed([path, *iter_parents(path)]):
                        if each not in added and not _add_member(archive, root, each):
                            self.missing.add(path)
                            break
                        added.add(each)
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


def _add_member(archive: tarfile.TarFile, root: Path, path: str) -> bool:
    """Add an entry, and return whether it still exists."""
    local = root / path
    try:
        status = local.lstat()
        member = tarfile.TarInfo(path)
        # A float: the PAX format keeps fractions of a second, so the next comparison finds the file unchanged.
        member.mtime = status.st_mtime_ns / 1e9  # pyright: ignore[reportAttributeAccessIssue]
        member.mode = stat.S_IMODE(status.st_mode) & 0o777
        if stat.S_ISDIR(status.st_mode):
            # Without write permission on it, nothing could be put into the directory afterwards.
            member.type, member.mode = tarfile.DIRTYPE, member.mode | 0o700
            archive.addfile(member)
        elif stat.S_ISLNK(status.st_mode):
            member.type, member.linkname = tarfile.SYMTYPE, str(local.readlink())
            archive.addfile(member)
        else:
            with open_regular(local) as file:
                member.size = os.fstat(file.fileno()).st_size
                archive.addfile(member, as_member(member, file))
    except FileNotFoundError:
        return False
    except OSError as error:  # tarfile raises one without a number for a file that ends early
        raise_os_error(error, local, f"{local}: {error.strerror or 'it became shorter while it was sent'}")
    return True
