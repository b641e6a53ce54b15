"""Scripts for the session's part of pushing and pulling directories."""

from __future__ import annotations

import base64
import binascii
import shlex
from collections.abc import Iterable, Iterator

from ..errors import FileError
from .shell_scripts import quote_path as quote_path
from .tree_plan import KIND_FILE, TEMPORARY_PREFIX, Tree, TreeEntry

_STAT_BLOCK_BYTES = 512  # in which stat(1) counts what a file takes
_DENSE_SHARE = 0.9  # of a file's bytes that must be on the disk, or an archive without its holes is smaller
CHANGED_EXIT_CODE = 99  # of `pack_stream_script`, if a file was changed while it was packed
RESTAGE = "restage"  # printed by `unpack_script` when pieces are missing or damaged


def list_script(root: str, out: str, *, digests: bool) -> str:
    """Return the script that lists a directory into a file.

    The file stays empty if there is no such directory. Entries that vanish meanwhile are left out, and directories that
    may not be read are marked.
    """
    digest = "find . -type f -readable -print0 | xargs -0 -r sha256sum -z --" if digests else ":"
    attributes = "%s %T@ %m\\0%P\\0%l\\0"
    # The length of the list comes first in the file, since the digests follow it, and names may hold any byte but NUL.
    return f"""\
P={quote_path(root)}; O={shlex.quote(out)}
if [ -e "$P" ] && [ ! -d "$P" ]; then echo "$P: Not a directory" >&2; exit 20; fi
[ -d "$P" ] || {{ : > "$O"; exit; }}
[ -x "$P" ] || {{ echo "$P: Permission denied" >&2; exit 13; }}  # cd of some shells gives no reason
cd -- "$P" || exit
find . -ignore_readdir_race -prune -printf '' 2> /dev/null || {{
  echo "the session has no find of GNU (findutils) to list directories with" >&2; exit 69; }}
command -v tar > /dev/null || {{ echo "the session has no tar to move directories with" >&2; exit 69; }}
trap 'rm -f -- "$O.list" "$O.sums"' EXIT
find . -ignore_readdir_race -mindepth 1 -type d \\( ! -readable -o ! -executable \\) -printf 'u {attributes}' -prune \
-o -printf '%y {attributes}' > "$O.list" || exit
{{ {digest}; }} 2>/dev/null > "$O.sums"
{{ wc -c < "$O.list"; cat "$O.list" "$O.sums"; }} > "$O" || {{ rm -f -- "$O"; exit 74; }}
"""


def read_tree_listing(data: bytes) -> Tree:
    """Read the file that `list_script` has written, parents before their children.

    Raises:
        FileError: If it cannot be read, or has a path that leaves its directory (path traversal).
    """
    try:
        head, _, rest = data.partition(b"\n")
        fields = rest[: int(head)].split(b"\0")
        digests = dict(_read_digests(rest[int(head) :]))
        tree: Tree = {}
        for attributes, name, target in zip(fields[0::3], fields[1::3], fields[2::3], strict=False):
            kind, size, time, mode = attributes.decode().split()
            path = name.decode("utf-8", "surrogateescape")
            whole, _, fraction = time.partition(".")
            moment = int(whole) * 10**9 + int(fraction[:9].ljust(9, "0") or "0")
            link = target.decode("utf-8", "surrogateescape")
            size_of = int(size) if kind == KIND_FILE else 0
            tree[path] = TreeEntry(kind, size_of, moment, int(mode, 8) & 0o777, link, digests.get(path, ""))
    except ValueError as error:
        raise FileError(f"The listing of the session's directory cannot be read: {error}") from error
    for path in tree:
        if path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")):
            raise FileError(f"The session reports a path that leaves its directory: {path!r}")
    return dict(sorted(tree.items()))


def _read_digests(data: bytes) -> Iterator[tuple[str, str]]:
    for item in data.split(b"\0"):
        if item:
            digest, _, name = item.partition(b"  ./")
            yield name.decode("utf-8", "surrogateescape"), digest.decode()


def print_script(script: str, out: str) -> str:
    """Return a script that prints the file that another one writes."""
    return f"""\
O={shlex.quote(out)}; trap 'rm -f -- "$O"' EXIT
({script}) && cat -- "$O"
"""


def encode_names(paths: Iterable[str]) -> bytes:
    """Return paths as NUL-terminated names."""
    # With ./ before it, no name can be taken for an option.
    return b"".join(f"./{path}\0".encode("utf-8", "surrogateescape") for path in paths)


def encode_paths(paths: Iterable[str]) -> str:
    """Return paths for the scripts below, as base64 of NUL-terminated names."""
    return base64.b64encode(encode_names(paths)).decode()


def decode_paths(text: str) -> list[str]:
    """Return the paths that a script below prints.

    Raises:
        FileError: If they cannot be read.
    """
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise FileError(f"The session's answer cannot be read: {error}") from error
    return [name.decode("utf-8", "surrogateescape").removeprefix("./") for name in data.split(b"\0") if name]


def pieces_script(staged: str) -> str:
    """Return the script that prints number and size of each staged piece."""
    return f"[ ! -d {staged} ] || find {staged} -type f -name 'p*' -printf '%f %s\\n'"


def piece_path(staged: str, number: int) -> str:
    """Return the path of a staged piece, whose name sorts by number."""
    return f"{staged}/p{number:08}"


def read_pieces(text: str) -> dict[int, int]:
    """Return the sizes in bytes that `pieces_script` prints, by number."""
    found = (line.split() for line in text.splitlines())
    return {int(line[0][1:]): int(line[1]) for line in found if len(line) == 2 and line[0][1:].isdigit()}


# Unpacks below the target itself, since mv is an atomic rename only within one file system.
_PLACE_SCRIPT = """\
find . -mindepth 1 -type d -print0 | (cd -- "$T" && xargs -0 -r mkdir -p --) || exit
for m in $(find . -mindepth 1 -type d -printf '%m\\n' | sort -u); do
  find . -mindepth 1 -type d -perm "$m" -print0 | (cd -- "$T" && xargs -0 -r chmod "$m" --) || exit
done
find . -type d -exec sh -c 'for d; do
  find "$d" -mindepth 1 -maxdepth 1 ! -type d -print0 | xargs -0 -r mv -f -t "$T/$d" -- || exit 255
done' sh {} + || exit
"""


def unpack_script(root: str, staged: str, token: str, digest: str) -> str:
    """Return the script that unpacks a staged archive, each file atomically by renaming.

    Other transfers of the same archive share its pieces, so this one works on hard links to them and checks the digest
    first. Every directory in the archive has its mode.
    """
    return f"""\
S={shlex.quote(staged)}; A=/tmp/{TEMPORARY_PREFIX}{token}
{_enter_script(root, token, '"$A"')}
archive() {{ (cd -- "$A" && find . -type f -name 'p*' -print0 | sort -z | xargs -0 -r cat --) | base64 -d; }}
cp -al -- "$S" "$A" 2>/dev/null && [ "$(archive 2>/dev/null | sha256sum)" = "{digest}  -" ] || \
{{ echo {RESTAGE}; rm -rf -- "$S"; exit 0; }}
mkdir -- "$N" && cd -- "$N" || exit
archive | tar -xzpf - --no-same-owner || exit
{_PLACE_SCRIPT}rm -rf -- "$S"
"""


def unpack_stream_script(root: str, token: str, earlier: Iterable[str]) -> str:
    """Return the script that unpacks the archive on its input.

    Each file is replaced atomically by renaming.

    Args:
        root: The directory.
        token: In the name of the directory in which it is unpacked.
        earlier: The tokens of attempts that were killed, which may have left theirs.
    """
    left = " ".join(f'"$T/{TEMPORARY_PREFIX}{other}"' for other in earlier)
    return f"""\
{_enter_script(root, token, left)}
mkdir -- "$N" && cd -- "$N" || exit
tar -xpf - --no-same-owner || exit
{_PLACE_SCRIPT}"""


def _enter_script(root: str, token: str, further: str) -> str:
    """Return the beginning of a script that works in `$N` below `$T`.

    At its end it removes `$N`, and what `further` names.
    """
    # The shell cuts newlines off the end of $(...), but the name of a directory may end with one: `echo .` protects it.
    return f"""\
P={quote_path(root)}
mkdir -p -- "$P" && cd -- "$P" || exit
T=$(pwd -P; echo .); T=${{T%??}}; export T
N=$T/{TEMPORARY_PREFIX}{token}; trap 'rm -rf -- "$N" {further}' EXIT; trap 'exit 143' TERM; rm -rf -- "$N"\
"""


# without times that nobody uses, since the reader parses each in Python
_TAR = "tar -cSf - --format=posix --pax-option=delete=atime,delete=ctime --no-recursion --hard-dereference --null"
_CHANGED_FUNCTION = """\
changed() { xargs -0 -r sh -c 'find "$@" -maxdepth 0 -type f -cnewer "$0" 2>/dev/null' "$O.start" < "$O.names"; }
"""


def pack_stream_script(root: str, token: str) -> str:
    """Return the script that packs the files whose names it reads, to its output.

    It ends with `CHANGED_EXIT_CODE` if one was changed meanwhile: what is packed may then be what no file ever held.
    """
    return f"""\
cd -- {quote_path(root)} || exit
O=/tmp/{TEMPORARY_PREFIX}{token}; trap 'rm -f -- "$O".*' EXIT; trap 'exit 143' TERM
cat > "$O.names" && : > "$O.start" || exit
sleep 0.02  # longer than a tick of the clock that gives files their times
{_CHANGED_FUNCTION}{_TAR} -T "$O.names" 2>/dev/null
[ -z "$(changed | head -c 1)" ] || exit {CHANGED_EXIT_CODE}
"""


def read_piece_script(root: str, offset: int, length: int) -> str:
    """Return the script that writes a part of a file.

    It reads the name. A line of `stat` stands before the bytes and behind them.
    """
    # After the pause, a change gets a later time than the first line has.
    pause = "" if offset else "sleep 0.02; "
    return f"""\
cd -- {quote_path(root)} || exit
exec xargs -0 sh -c 'look() {{ stat -c "%s %b %i %z" -- "$1"; }}
look "$1"; {pause}tail -c +{offset + 1} -- "$1" | head -c {length}; look "$1"' sh
"""


def is_whole_file(state: bytes, size: int) -> bool:
    """Return whether a file has that size, and no large holes.

    Args:
        state: The line of `read_piece_script`.
    """
    found, blocks, *_ = *state.split(b" ", 2), b"", b""
    return found == b"%d" % size and blocks.isdigit() and int(blocks) * _STAT_BLOCK_BYTES >= size * _DENSE_SHARE


def pack_script(root: str, wanted: str, out: str) -> str:
    """Return the script that packs the files whose names are staged.

    tar fills a file that shrinks while it is read with zeros that the file never held. So when a file was changed
    meanwhile, all of them are copied first, with `cat`, which ends where the file ends. What cannot be read is missing
    in the archive, and the caller sees that.
    """
    # find looks at the time of the last change of the inode (-cnewer), which no program can set back, unlike the time
    # of modification. The copy gets the time that the file had before it was read, so that a change during the copy
    # shows in the next comparison.
    return f"""\
cd -- {quote_path(root)} || exit
W={shlex.quote(wanted)}; O={shlex.quote(out)}; N=$O.copy; export N
trap 'rm -rf -- "$W" "$O".*' EXIT
base64 -d < "$W" > "$O.names" && : > "$O.start" || exit
sleep 0.02  # longer than a tick of the clock that gives files their times
T='{_TAR}'
$T -T "$O.names" 2>/dev/null | gzip -1 > "$O" || exit
{_CHANGED_FUNCTION}[ -n "$(changed | head -c 1)" ] || exit 0
select_files() {{ xargs -0 -r sh -c 'find "$@" -maxdepth 0 '"$1"' -print0 2>/dev/null' sh < "$O.names"; }}
select_files '-type f' > "$O.files"; select_files '! -type f' > "$O.others"
mkdir -- "$N" && xargs -0 -r sh -c 'for f; do
  case ${{f#./}} in */*) mkdir -p -- "$N/${{f%/*}}";; esac
  touch -r "$f" -- "$N.time" && cat < "$f" > "$N/$f" && chmod --reference="$f" -- "$N/$f" && \
touch -r "$N.time" -- "$N/$f" || rm -f -- "$N/$f"
done' sh < "$O.files" 2>/dev/null
$T -T "$O.others" -C "$N" -T "$O.files" 2>/dev/null | gzip -1 > "$O"
"""


def discard_script(root: str, tokens: Iterable[str]) -> str:
    """Return the script that removes temporary files by the tokens in their names."""
    names = [f"{TEMPORARY_PREFIX}{token}" for token in tokens]
    staged = " ".join(f"/tmp/{name} /tmp/{name}.*" for name in names)
    return f"""\
rm -rf -- {staged}
cd -- {quote_path(root)} 2>/dev/null && rm -rf -- {" ".join(names)}
"""


def existing_script(root: str, staged: str) -> str:
    """Return the script that prints which of the staged names still exist."""
    return f"""\
S={shlex.quote(staged)}; trap 'rm -f -- "$S"' EXIT
cd -- {quote_path(root)} || exit
base64 -d < "$S" | xargs -0 -r sh -c 'for f; do
  if [ -e "$f" ] || [ -L "$f" ]; then printf "%s\\0" "$f"; fi
done' sh | base64
"""


def delete_script(root: str, staged: str) -> str:
    """Return the script that removes staged names, and prints those that remain.

    Children come first. A directory that is not empty by then holds what was not to be removed, so it stays.
    """
    return f"""\
cd -- {quote_path(root)} || exit
S={shlex.quote(staged)}; trap 'rm -f -- "$S" "$S.names"' EXIT
base64 -d < "$S" > "$S.names" || exit
select_names() {{ xargs -0 -r sh -c 'find "$@" -maxdepth 0 '"$1"' -print0 2>/dev/null' sh < "$S.names"; }}
select_names '! -type d' | xargs -0 -r rm -f --
select_names '-type d' | xargs -0 -r rmdir -- 2>/dev/null
select_names '' | base64
"""
