"""Shell scripts that write bytes, since the file tools carry only UTF-8 text."""

from __future__ import annotations

import shlex

# A link is resolved first, since the rename would replace the link instead of the file to which it points. The new file
# is made beside the old one, as a rename is atomic only within one file system.
_NAMES_SCRIPT = """\
P={path}; S={staged}
t=$P; [ ! -L "$P" ] || t=$(readlink -f -- "$P") || exit
d=./; case "$t" in */*) d=${{t%/*}}/;; esac
n=$d.agentbay-{token}
"""
_DISCARD_SCRIPT = """\
rm -f -- "$S" "$n"
"""
_DECODE_SCRIPT = """\
trap 'rm -f -- "$S" "$n"' EXIT
command -v base64 >/dev/null || {{ echo 'the session has no base64 to decode bytes with' >&2; exit 69; }}
case "$P" in */) false;; *) [ ! -d "$P" ];; esac || {{ echo "$P: Is a directory" >&2; exit 21; }}
mkdir -p -- "$d" || {{ [ ! -e "${{d%/}}" ] || [ -d "$d" ] || echo "$P: Not a directory" >&2; exit 20; }}
[ ! -e "$t" ] || [ -f "$t" ] || {{ echo "$P: Not a regular file" >&2; exit 22; }}
[ ! -e "$t" ] || [ -w "$t" ] || {{ echo "$P: Permission denied" >&2; exit 13; }}
base64 -d < "$S" > "$n" || exit
"""
# The rename would replace the permissions of the old file too, and take the content from its further names.
_REPLACE_SCRIPT = """\
place() {{
  [ "$(stat -c %h -- "$t" 2>/dev/null || echo 1)" = 1 ] || {{ cat -- "$n" > "$t"; return; }}
  [ ! -e "$t" ] || chmod --reference="$t" -- "$n" 2>/dev/null; mv -f -- "$n" "$t"
}}
"""
_APPEND_SCRIPT = """\
place() {{ cat -- "$n" >> "$t"; }}
"""
# The lock on the directory is the one that the file tools of the local runtime take for edits and appends.
_LOCK_SCRIPT = """\
command -v flock >/dev/null && [ -r "$d" ] || {{ place; exit; }}
{{ flock -w 10 9 || {{ echo "$P: Another change in its directory does not end" >&2; exit 75; }}; place; }} 9< "$d"
"""


def staging_path(token: str) -> str:
    """Return the path where the base64 of a file's bytes is collected."""
    return f"/tmp/.agentbay-{token}.b64"


def write_bytes_script(path: str, staged: str, token: str, *, append: bool) -> str:
    """Return the script that decodes staged base64 into a file, atomically.

    It replaces the file by renaming, or appends to it, and removes the staged text.
    """
    script = _NAMES_SCRIPT + _DECODE_SCRIPT + (_APPEND_SCRIPT if append else _REPLACE_SCRIPT) + _LOCK_SCRIPT
    return script.format(path=quote_path(path), staged=shlex.quote(staged), token=token)


def discard_script(path: str, staged: str, token: str) -> str:
    """Return the script that removes what a killed script of `write_bytes_script` has left."""
    return (_NAMES_SCRIPT + _DISCARD_SCRIPT).format(path=quote_path(path), staged=shlex.quote(staged), token=token)


def quote_path(path: str) -> str:
    """Quote a path for the shell, in which only `~` is special."""
    if path == "~" or path.startswith("~/"):
        return '"$HOME"' + shlex.quote(path[1:]) if len(path) > 1 else '"$HOME"'
    # A path that begins with - would be taken for an option.
    return shlex.quote(f"./{path}" if path.startswith("-") else path)
