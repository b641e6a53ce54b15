"""What the file tools cannot carry, as shell commands: bytes that are no UTF-8."""

from __future__ import annotations

import shlex

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
_REPLACE_SCRIPT = """\
[ ! -e "$t" ] || chmod --reference="$t" -- "$n" 2>/dev/null
mv -f -- "$n" "$t"
"""
_APPEND_SCRIPT = """\
cat -- "$n" >> "$t"
"""


def staging_path(token: str) -> str:
    """Where the base64 of a file's bytes lies until it is whole."""
    return f"/tmp/.agentbay-{token}.b64"


def write_bytes_script(path: str, staged: str, token: str, *, append: bool) -> str:
    """The command that turns staged base64 into a file, or adds it to one, and removes it; at once, or not at all."""
    head = _DECODE_SCRIPT.format(path=quote_path(path), staged=shlex.quote(staged), token=token)
    return head + (_APPEND_SCRIPT if append else _REPLACE_SCRIPT)


def quote_path(path: str) -> str:
    """A path for the shell, which means by it what the file tools mean: `~` is home, and nothing else is special."""
    if path == "~" or path.startswith("~/"):
        return '"$HOME"' + shlex.quote(path[1:]) if len(path) > 1 else '"$HOME"'
    return shlex.quote(f"./{path}" if path.startswith("-") else path)
