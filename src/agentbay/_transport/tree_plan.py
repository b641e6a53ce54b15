"""Compare directory trees, plan their transfer, and write the session's scripts."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from ..errors import FileError
from .shell_scripts import quote_path as quote_path

KIND_FILE, KIND_DIRECTORY, KIND_LINK = "f", "d", "l"
TEMPORARY_PREFIX = ".agentbay-"  # begins the names of files that are still incomplete
_BATCH_BYTES, _BATCH_FILES = 8 << 20, 2000  # of one archive, so that an interruption loses little
_MTIME_TOLERANCE_NS = 2000  # nanoseconds; archives store times as floating-point seconds


class TreeEntry(NamedTuple):
    """An entry of a directory tree.

    Attributes:
        kind: "f", "d" or "l", for a file, a directory or a symbolic link.
        size: Bytes, 0 if it is no file.
        mtime_ns: Time of modification in nanoseconds.
        mode: Permission bits.
        link_target: Target of a symbolic link.
        digest: SHA-256 in hexadecimal, or "" if it was not asked for.
    """

    kind: str
    size: int = 0
    mtime_ns: int = 0
    mode: int = 0
    link_target: str = ""
    digest: str = ""


Tree = dict[str, TreeEntry]


class TransferPlan(NamedTuple):
    """The paths to copy and to delete, and the batches in which they travel.

    The same difference always gives the same batches, so that an interrupted transfer can be continued.
    """

    copied: list[str]
    deleted: list[str]
    unchanged: int
    batches: list[list[str]]
    bytes: int


def is_unchanged(one: TreeEntry, other: TreeEntry | None) -> bool:
    """Whether an entry need not be copied."""
    if other is None or one.kind != other.kind:
        return False
    if one.kind == KIND_LINK:
        return one.link_target == other.link_target
    if one.kind == KIND_DIRECTORY:
        return True
    if one.size != other.size or one.mode != other.mode:
        return False
    if one.digest or other.digest:
        return one.digest == other.digest
    return abs(one.mtime_ns - other.mtime_ns) <= _MTIME_TOLERANCE_NS


def plan_transfer(source: Tree, target: Tree, *, delete: bool) -> TransferPlan:
    """Plan how `target` becomes equal to `source`.

    Args:
        delete: Whether to remove entries that `source` does not have.
    """
    copied = sorted(path for path, entry in source.items() if not is_unchanged(entry, target.get(path)))
    in_the_way = {
        path
        for path, entry in target.items()
        if (delete if path not in source else _is_kind_conflict(entry, source[path]))
    }
    # deleting a directory deletes everything below it
    deleted = sorted(path for path in in_the_way if not any(above in in_the_way for above in iter_parents(path)))
    return TransferPlan(
        copied, deleted, len(source) - len(copied), list(_batches(copied, source)), sum(source[p].size for p in copied)
    )


def _is_kind_conflict(one: TreeEntry, other: TreeEntry) -> bool:
    return one.kind != other.kind and KIND_DIRECTORY in (one.kind, other.kind)


def iter_parents(path: str) -> Iterator[str]:
    """Yield the directories above a path, the nearest first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _batches(paths: Iterable[str], tree: Tree) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for path in paths:
        if batch and (size + tree[path].size > _BATCH_BYTES or len(batch) >= _BATCH_FILES):
            yield batch
            batch, size = [], 0
        batch.append(path)
        size += tree[path].size
    if batch:
        yield batch


def gitignore_matcher(patterns: Iterable[str]) -> Callable[[str, bool], bool]:
    """Return a function that tells whether git would ignore a path.

    It judges the path alone: the caller leaves out everything below an ignored directory. A rule that git cannot read
    matches nothing.

    Args:
        patterns: Lines of a `.gitignore` file.
    """
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern  # here, so that importing agentbay stays quick

    rules: list[tuple[re.Pattern[str], bool]] = []
    for pattern in patterns:
        # pathspec's own matcher also judges paths by their parents, so that `!src/` would take back all below src/.
        with suppress(ValueError, re.error):
            regex, ignores = GitIgnoreSpecPattern.pattern_to_regex(_LAST_STARS.sub(_spell_out_stars, pattern))
            if regex is not None:
                rules.insert(0, (re.compile(regex, re.DOTALL), bool(ignores)))

    def ignored(path: str, is_directory: bool) -> bool:
        name = f"{path}/" if is_directory else path
        return next((ignores for regex, ignores in rules if regex.fullmatch(name)), False)

    return ignored


# pathspec gives these ends a regular expression for what is below; this spelling has one for the whole path.
_LAST_STARS = re.compile(r"(?<![^/!])\*{1,2}(?=/?\s*$)")


def _spell_out_stars(stars: re.Match[str]) -> str:
    return "**/?*" if stars[0] == "**" else "?*"


def without_ignored(tree: Tree, ignored: Callable[[str, bool], bool]) -> Tree:
    """Return the tree without ignored entries and everything below them."""
    gone = {path for path, entry in tree.items() if ignored(path, entry.kind == KIND_DIRECTORY)}
    return {
        path: entry
        for path, entry in tree.items()
        if path not in gone and not any(above in gone for above in iter_parents(path))
    }


# ── Commands ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def list_script(root: str, out: str, *, digests: bool) -> str:
    """Return the script that lists a directory into a file.

    The file stays empty if there is no such directory.
    """
    digest = f'find . -type f ! -name "{TEMPORARY_PREFIX}*" -print0 | xargs -0 -r sha256sum -z --' if digests else ":"
    return f"""\
P={quote_path(root)}; O={shlex.quote(out)}
if [ -e "$P" ] && [ ! -d "$P" ]; then echo "$P: Not a directory" >&2; exit 20; fi
[ -d "$P" ] || {{ : > "$O"; exit; }}
cd -- "$P" || exit
find . -mindepth 1 -name '{TEMPORARY_PREFIX}*' -prune -o \\( -type f -o -type d -o -type l \\) \
-printf '%y %s %T@ %m\\0%P\\0%l\\0' > "$O.list" || exit
{{ {digest}; }} > "$O.sums" || exit
{{ wc -c < "$O.list"; cat "$O.list" "$O.sums"; }} > "$O"; rm -f "$O.list" "$O.sums"
"""


def read_tree_listing(data: bytes) -> Tree:
    """Read the file that `list_script` has written.

    Raises:
        FileError: If it cannot be read.
    """
    if not data:
        return {}
    try:
        head, _, rest = data.partition(b"\n")
        fields = rest[: int(head)].split(b"\0")
        digests = dict(_read_digests(rest[int(head) :]))
        tree: Tree = {}
        for facts, name, target in zip(fields[0::3], fields[1::3], fields[2::3], strict=False):
            kind, size, time, mode = facts.decode().split()
            path = name.decode("utf-8", "surrogateescape")
            whole, _, fraction = time.partition(".")
            moment = int(whole) * 10**9 + int(fraction[:9].ljust(9, "0") or "0")
            link = target.decode("utf-8", "surrogateescape")
            size_of = int(size) if kind == KIND_FILE else 0
            tree[path] = TreeEntry(kind, size_of, moment, int(mode, 8) & 0o777, link, digests.get(path, ""))
    except ValueError as error:
        raise FileError(f"The listing of the session's directory cannot be read: {error}") from error
    return tree


def _read_digests(data: bytes) -> Iterator[tuple[str, str]]:
    for item in data.split(b"\0"):
        if item:
            digest, _, name = item.partition(b"  ./")
            yield name.decode("utf-8", "surrogateescape"), digest.decode()


def encode_paths(paths: Iterable[str]) -> str:
    """Return paths for `pack_script` and `delete_script`, as base64 of NUL-terminated names."""
    return base64.b64encode(b"".join(f"./{path}\0".encode("utf-8", "surrogateescape") for path in paths)).decode()


def unpack_script(root: str, staged: str, token: str) -> str:
    """Return the script that unpacks a staged archive, each file atomically by renaming."""
    return f"""\
P={quote_path(root)}; S={shlex.quote(staged)}
mkdir -p -- "$P" && cd -- "$P" || exit
T=$(pwd -P; echo .); T=${{T%??}}; export T
N=$T/{TEMPORARY_PREFIX}{token}; trap 'rm -rf -- "$N"' EXIT; rm -rf -- "$N"; mkdir -- "$N" && cd -- "$N" || exit
base64 -d < "$S" | tar -xzpf - --no-same-owner || exit
find . -mindepth 1 -type d -print0 | (cd -- "$T" && xargs -0 -r mkdir -p --) || exit
find . -type d -exec sh -c 'for d; do
  find "$d" -mindepth 1 -maxdepth 1 ! -type d -print0 | xargs -0 -r mv -f -t "$T/$d" -- || exit 255
done' sh {{}} + || exit
rm -f -- "$S"
"""


def pack_script(root: str, wanted: str, out: str) -> str:
    """Return the script that packs the staged names, and prints the archive's size."""
    return f"""\
cd -- {quote_path(root)} || exit
base64 -d < {shlex.quote(wanted)} | tar -cf - --format=posix --no-recursion --null -T - | gzip -1 > {shlex.quote(out)}
rm -f -- {shlex.quote(wanted)}; wc -c < {shlex.quote(out)}
"""


def delete_script(root: str, doomed: str) -> str:
    """Return the script that removes the paths whose names are staged."""
    return f"""\
cd -- {quote_path(root)} || exit
base64 -d < {shlex.quote(doomed)} | xargs -0 -r rm -rf -- || exit
rm -f -- {shlex.quote(doomed)}
"""


def check_paths(tree: Mapping[str, TreeEntry]) -> None:
    """Refuse a tree with a path that leaves its directory (path traversal).

    Raises:
        FileError: Names the path.
    """
    for path in tree:
        if path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")):
            raise FileError(f"The session reports a path that leaves its directory: {path!r}")
