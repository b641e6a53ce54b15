"""Shell scripts for background processes, which run in any Linux session.

Each process has a directory of its own in the session, named by its id:

| file     | content                                                                          |
|----------|----------------------------------------------------------------------------------|
| `stdout`, `stderr` | all output, so that any part can be read again                         |
| `stdin`  | a FIFO; `holder` is the pid of the process that keeps its writing end open       |
| `pid`    | pid of the process, which leads a process group, and of its supervisor           |
| `born`   | the supervisor's start time in clock ticks, which guards against reuse of its pid|
| `exit`   | the exit code, written by the supervisor in one step                             |
"""

from __future__ import annotations

import base64
import binascii
import re
import shlex
from typing import NamedTuple

from .._wire.tools import ToolReply
from ..errors import CommandError, ReplyError
from .command import read_command_result
from .reply import Reply
from .shell_scripts import quote_path

_PROCESSES_PATH = ".agentbay/processes"
PROCESSES_DIRECTORY = f'"$HOME"/{_PROCESSES_PATH}'
OUTPUT_CHUNK_BYTES = 48 * 1024  # bytes of output in one answer; base64 makes it a third longer
INPUT_BLOCK_BYTES = 4096  # PIPE_BUF: bytes that a FIFO takes atomically
_PROCESS_ID = re.compile(r"[0-9a-f]{16}")
_EXIT_UNKNOWN_PROCESS, _EXIT_OUTPUT_LOST, _EXIT_ENDED = 81, 82, 83  # exit codes of the scripts below
_POLL_SECONDS = 0.05  # seconds between polls inside the session

# Opening one end of a FIFO blocks until the other end is opened, so the supervisor opens both at once (<>) first. The
# sleeping holder keeps the writing end open: otherwise the process would see the end of its input after the first
# piece. `pid` and `exit` appear by renaming, so that no reader finds them half written.
_SUPERVISOR_SCRIPT = """\
D=$1; cd -- "$2" 2>> "$D/stderr" || { echo 126 > "$D/exit.new"; mv "$D/exit.new" "$D/exit"; exit; }
exec 9<>"$D/stdin" 8>"$D/stdin" 7<"$D/stdin" 9>&-
sleep 2147483647 7<&- > /dev/null 2>&1 &
holder=$!
setsid sh -c "$3" <&7 7<&- 8>&- > "$D/stdout" 2> "$D/stderr" &
child=$!
exec 7<&- 8>&-
read -r born < /proc/$$/stat && set -- ${born##*) } && echo "${20}" > "$D/born"
echo "$holder" > "$D/holder"
echo "$child $$" > "$D/pid.new"; mv "$D/pid.new" "$D/pid"
wait "$child"
echo $? > "$D/exit.new"; mv "$D/exit.new" "$D/exit"
kill "$holder"
"""

# The name of the program in /proc/PID/stat may hold blanks and parentheses, so fields count from the last ") ": the
# start time is the 20th after it.
_ALIVE_SCRIPT = """\
alive() {
  read -r child keeper < pid && kill -0 "$keeper" 2>/dev/null || return
  [ -s born ] || return 0
  read -r was < born; read -r now < /proc/$keeper/stat && set -- ${now##*) } && [ "${20}" = "$was" ]
}
"""


class ProcessState(NamedTuple):
    """The state of a background process.

    Attributes:
        exit_code: None while it runs.
        is_lost: Whether it is gone and has left no exit code.
        size: Bytes of the requested stream so far.
        data: The part of them from the requested offset on, as much as one answer holds.
    """

    exit_code: int | None
    is_lost: bool
    size: int
    data: bytes


def check_id(process_id: str) -> str:
    """Return a process id, if it has the form of one.

    Raises:
        ValueError: If it has not.
    """
    if not _PROCESS_ID.fullmatch(process_id):
        raise ValueError(f"not the id of a process: {process_id!r}")
    return process_id


def start_script(process_id: str, command: str, cwd: str | None) -> str:
    """Return the script that starts a process and prints its pid.

    It is idempotent: a process that was started under the same id is not started again.
    """
    where = quote_path(cwd) if cwd is not None else "."
    # mkdir is atomic: of two calls with the same id, one starts the process, and the other waits for its pid. The umask
    # keeps the output private, and the process gets the one of the session back.
    return f"""\
D={PROCESSES_DIRECTORY}/{process_id}
command -v setsid mkfifo >/dev/null || {{ echo 'the session has no setsid and mkfifo' >&2; exit 69; }}
u=$(umask); umask 077; mkdir -p {PROCESSES_DIRECTORY} || exit
if mkdir "$D" 2>/dev/null; then
  mkfifo "$D/stdin" && : > "$D/stdout" && : > "$D/stderr" || exit
  umask "$u"
  setsid sh -c {shlex.quote(_SUPERVISOR_SCRIPT)} sh "$D" {where} {shlex.quote(command)} </dev/null >/dev/null 2>&1 &
fi
n=0
until [ -f "$D/pid" ] || [ -f "$D/exit" ]; do n=$((n+1)); [ "$n" -lt 400 ] || exit 70; sleep 0.02; done
[ -f "$D/pid" ] || {{ cat "$D/stderr" >&2; rm -r "$D"; exit 126; }}
cat "$D/pid"
"""


def process_directory(process_id: str) -> str:
    """Return the directory of a process, below the session's home."""
    return f"{_PROCESSES_PATH}/{process_id}"


def find_script(process_id: str) -> str:
    """Return the script that prints the pid of a process that was started before."""
    return f"cd {PROCESSES_DIRECTORY}/{process_id} 2>/dev/null || exit {_EXIT_UNKNOWN_PROCESS}; cat pid"


def read_pid(reply: Reply[ToolReply], process_id: str) -> int:
    """Return the pid from the answer to `start_script` or `find_script`.

    Raises:
        CommandError: If the process was not started, or is unknown.
        ReplyError: If the answer has no pid.
    """
    text = _output_or_raise(reply, process_id)
    try:
        return int(text.split()[0])
    except (ValueError, IndexError):
        raise ReplyError(f"{text!r:.80} is no pid", request_id=reply.request_id) from None


def follow_script(process_id: str, stream: str, offset: int, seconds: float) -> str:
    """Return the script that waits for output beyond `offset` bytes, or for the end.

    It prints the state and the new output. With `stream` "" it waits for the end only.
    """
    file = stream or "/dev/null"
    # The exit code is read before the size, so that the size that comes with it is not one from before the end. `exit`
    # is looked for again when the supervisor is gone, since it may have written it in between.
    return f"""\
cd {PROCESSES_DIRECTORY}/{process_id} 2>/dev/null || exit {_EXIT_UNKNOWN_PROCESS}
{_ALIVE_SCRIPT}n=0
while :; do
  x=-; [ ! -f exit ] || read -r x < exit
  [ "$x" != - ] || alive || [ -f exit ] || x=lost
  s=$(wc -c < {file}) || exit {_EXIT_OUTPUT_LOST}
  [ "$s" -eq {offset} ] && [ "$x" = - ] && [ "$n" -lt {int(seconds / _POLL_SECONDS)} ] || break
  n=$((n+1)); sleep {_POLL_SECONDS}
done
[ "$s" -ge {offset} ] || exit {_EXIT_OUTPUT_LOST}
echo $x $s
[ "$s" = {offset} ] || tail -c +{offset + 1} {file} | head -c {OUTPUT_CHUNK_BYTES} | base64
"""


def read_state(reply: Reply[ToolReply], process_id: str) -> ProcessState:
    """Return the state from the answer to `follow_script`.

    Raises:
        CommandError: If the process is unknown, or its output was removed.
        ReplyError: If the answer cannot be read.
    """
    first, _, rest = _output_or_raise(reply, process_id).partition("\n")
    try:
        code, size = first.split()
        data = base64.b64decode("".join(rest.split()), validate=True)
        return ProcessState(None if code in ("-", "lost") else int(code), code == "lost", int(size), data)
    except (ValueError, binascii.Error):
        raise ReplyError(f"The state of process {process_id} cannot be read.", request_id=reply.request_id) from None


def feed_script(process_id: str, staged: str, size: int, done: int, seconds: float) -> str:
    """Return the script that writes staged input into the FIFO, from byte `done` on.

    It prints how many bytes are written. Each block is written whole or not at all. It ends when the process reads
    nothing for `seconds` (back pressure).
    """
    # The lock keeps the blocks of two callers apart. A block of at most PIPE_BUF bytes goes into a FIFO whole or not at
    # all, so a dd that timed out has written nothing, and the input can go on at the same place.
    return f"""\
cd {PROCESSES_DIRECTORY}/{process_id} 2>/dev/null || exit {_EXIT_UNKNOWN_PROCESS}
[ ! -f exit ] && [ -f holder ] || {{ rm -f {staged}; exit {_EXIT_ENDED}; }}
f={staged}.in; trap 'rm -f "$f"' EXIT; base64 -d < {staged} > "$f" || exit 70
if command -v flock >/dev/null; then exec 5>>born && flock -w {seconds:g} 5 || {{ echo {done}; exit 0; }}; fi
n={done}; t=0
while [ "$n" -lt {size} ]; do
  skip=$((n / {INPUT_BLOCK_BYTES}))
  timeout {seconds:g} dd if="$f" of=stdin bs={INPUT_BLOCK_BYTES} count=1 skip=$skip 2>/dev/null || break
  n=$((n + {INPUT_BLOCK_BYTES}))
done
[ "$n" -lt {size} ] || n={size}
echo "$n"; [ "$n" -lt {size} ] || rm -f {staged}
"""


def close_input_script(process_id: str) -> str:
    """Return the script that ends the input.

    The process still reads what was sent before.
    """
    # Renaming succeeds once, so of two callers only one kills the holder.
    return f"""\
cd {PROCESSES_DIRECTORY}/{process_id} 2>/dev/null || exit {_EXIT_UNKNOWN_PROCESS}
[ ! -f exit ] || exit 0
if mv holder closed 2>/dev/null; then kill "$(cat closed)"; fi
"""


def signal_script(process_id: str, name: str) -> str:
    """Return the script that signals the whole process group, unless it has ended."""
    return f"""\
cd {PROCESSES_DIRECTORY}/{process_id} 2>/dev/null || exit {_EXIT_UNKNOWN_PROCESS}
[ ! -f exit ] || exit 0
{_ALIVE_SCRIPT}alive || exit 0
kill -s {name} -- "-$child" 2>/dev/null || kill -s {name} "$child" 2>/dev/null || :
"""


def remove_script(process_id: str) -> str:
    """Return the script that removes the directory of a process that has ended."""
    return f"""\
cd {PROCESSES_DIRECTORY}/{process_id} 2>/dev/null || exit 0
{_ALIVE_SCRIPT}[ -f exit ] || ! alive || {{ echo 'it still runs' >&2; exit 1; }}
rm -rf -- {PROCESSES_DIRECTORY}/{process_id}
"""


def read_output_or_raise(reply: Reply[ToolReply], process_id: str) -> str:
    """Return the output of one of these scripts.

    Raises:
        CommandError: If it failed.
    """
    return _output_or_raise(reply, process_id)


def _output_or_raise(reply: Reply[ToolReply], process_id: str) -> str:
    result = read_command_result(reply)
    if result.success:
        return result.stdout
    if result.exception is not None:
        raise result.exception
    why = {
        _EXIT_UNKNOWN_PROCESS: f"There is no process {process_id} in this session.",
        _EXIT_OUTPUT_LOST: f"Output of process {process_id} is lost: "
        "somebody removed or shortened its file in the session.",
        _EXIT_ENDED: f"Process {process_id} does not take input any more.",
    }.get(result.exit_code, f"Process {process_id}: {result.error_message.strip()}")
    raise CommandError(why, request_id=reply.request_id)
