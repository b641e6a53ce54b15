"""Shell scripts that write bytes, since the file tools carry only UTF-8 text."""

from __future__ import annotations

import shlex

# A link is resolved first, since the rename would replace the link instead of the file to which it points. The new file
# is made beside the old one, as a rename is atomic only within one file system.
_DECODE_SCRIPT = """\
P={path}; S={staged}
n=
trap 'rm -f -- "$S" ${{n:+"$n"}}' EXIT
command -v base64 >/dev/null || {{ echo 'the session has no base64 to decode bytes with' >&2; exit 69; }}
case "$P" in */*) mkdir -p -- "${{P%/*}}/" || exit;; esac
[ ! -d "$P" ] || {{ echo "$P: Is a directory" >&2; exit 21; }}
t=$P; [ ! -L "$P" ] || t=$(readlink -f -- "$P") || exit
case "$t" in */*) n=${{t%/*}}/;; esac
n=$n.agentbay-{token}
base64 -d < "$S" > "$n" || exit
"""
# The rename would replace the permissions of the old file too.
_REPLACE_SCRIPT = """\
[ ! -e "$t" ] || chmod --reference="$t" -- "$n" 2>/dev/null
mv -f -- "$n" "$t"
"""
_APPEND_SCRIPT = """\
cat -- "$n" >> "$t"
"""


def staging_path(token: str) -> str:
    """Return the path where the base64 of a file's bytes is collected."""
    return f"/tmp/.agentbay-{token}.b64"


def write_bytes_script(path: str, staged: str, token: str, *, append: bool) -> str:
    """Return the script that decodes staged base64 into a file, atomically.

    It replaces the file by renaming, or appends to it, and removes the staged text.
    """
    head = _DECODE_SCRIPT.format(path=quote_path(path), staged=shlex.quote(staged), token=token)
    return head + (_APPEND_SCRIPT if append else _REPLACE_SCRIPT)


def quote_path(path: str) -> str:
    """Quote a path for the shell, in which only `~` is special."""
    if path == "~" or path.startswith("~/"):
        return '"$HOME"' + shlex.quote(path[1:]) if len(path) > 1 else '"$HOME"'
    # A path that begins with - would be taken for an option.
    return shlex.quote(f"./{path}" if path.startswith("-") else path)
