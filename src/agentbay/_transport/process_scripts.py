"""Background processes, made of shell commands that every Linux session can run.

Each has a directory of its own in the session, named by its id:

| file     | what it holds                                                            |
|----------|--------------------------------------------------------------------------|
| `stdout`, `stderr` | all it has written, so that any part can be read again         |
| `stdin`  | a FIFO; `holder` is the pid of what keeps its writing end open           |
| `pid`    | pid of the process, which leads a process group, and of its keeper       |
| `born`   | when the keeper was started, in ticks: with its pid it means no other    |
| `exit`   | the exit code, put there by the keeper in one step                       |
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
OUTPUT_CHUNK_BYTES = 48 * 1024  # bytes of output in one answer, which base64 makes a third longer
INPUT_BLOCK_BYTES = 4096  # bytes that a FIFO takes whole or not at all
_PROCESS_ID = re.compile(r"[0-9a-f]{16}")
_EXIT_UNKNOWN_PROCESS, _EXIT_OUTPUT_LOST, _EXIT_ENDED = 81, 82, 83  # exit codes of the commands below
_POLL_SECONDS = 0.05  # seconds between two looks inside the session

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

_ALIVE_SCRIPT = """\
alive() {
  read -r child keeper < pid && kill -0 "$keeper" 2>/dev/null || return
  [ -s born ] || return 0
  read -r was < born; read -r now < /proc/$keeper/stat && set -- ${now##*) } && [ "${20}" = "$was" ]
}
"""


class ProcessState(NamedTuple):
    """How a process stands.

    Attributes:
        exit_code: None as long as it runs.
        lost: Whether it is gone and has left no exit code.
        size: Bytes of the stream that was asked for, so far.
        data: Those of them from the offset on, as many as one answer holds.
    """

    exit_code: int | None
    is_lost: bool
    size: int
    data: bytes


def check_id(process_id: str) -> str:
    """Refuse what cannot be the id of a process.

    Raises:
        ValueError: It is none.
    """
    if not _PROCESS_ID.fullmatch(process_id):
        raise ValueError(f"not the id of a process: {process_id!r}")
    return process_id


def start_script(process_id: str, command: str, cwd: str | None) -> str:
    """The command that starts a process and tells its pid; one that was started under that id is not started again."""
    where = quote_path(cwd) if cwd is not None else "."
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
    """Where a process has its directory, below the session's home."""
    return f"{_PROCESSES_PATH}/{process_id}"


def find_script(process_id: str) -> str:
    """The command that tells the pid of a process that was started before."""
    return f"cd {PROCESSES_DIRECTORY}/{process_id} 2>/dev/null || exit {_EXIT_UNKNOWN_PROCESS}; cat pid"


def read_pid(reply: Reply[ToolReply], process_id: str) -> int:
    """Read the answer to `start` and `find`.

    Raises:
        CommandError: It was not started, or is not known.
    """
    text = _output_or_raise(reply, process_id)
    try:
        return int(text.split()[0])
    except (ValueError, IndexError):
        raise ReplyError(f"{text!r:.80} is no pid", request_id=reply.request_id) from None


def follow_script(process_id: str, stream: str, offset: int, seconds: float) -> str:
    """The command that waits until there is more than `offset` bytes of a stream, or the end, and tells both.

    With `stream` "" only the end counts.
    """
    file = stream or "/dev/null"
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
    """Read the answer to `follow`.

    Raises:
        CommandError: The process is not known, or its output is not there any more.
        ReplyError: It cannot be read.
    """
    first, _, rest = _output_or_raise(reply, process_id).partition("\n")
    try:
        code, size = first.split()
        data = base64.b64decode("".join(rest.split()), validate=True)
        return ProcessState(None if code in ("-", "lost") else int(code), code == "lost", int(size), data)
    except (ValueError, binascii.Error):
        raise ReplyError(f"The state of process {process_id} cannot be read.", request_id=reply.request_id) from None


def feed_script(process_id: str, staged: str, size: int, done: int, seconds: float) -> str:
    """The command that writes a staged input into the FIFO, from `done` bytes on, and tells how far it came.

    In blocks that are written whole or not at all; it ends when the process takes nothing for some time.
    """
    return f"""\
cd {PROCESSES_DIRECTORY}/{process_id} 2>/dev/null || exit {_EXIT_UNKNOWN_PROCESS}
[ ! -f exit ] && [ -f holder ] || {{ rm -f {staged}; exit {_EXIT_ENDED}; }}
f=/tmp/.agentbay-{process_id}-in; base64 -d < {staged} > "$f" || exit 70
n={done}; t=0
while [ "$n" -lt {size} ]; do
  skip=$((n / {INPUT_BLOCK_BYTES}))
  timeout {seconds:g} dd if="$f" of=stdin bs={INPUT_BLOCK_BYTES} count=1 skip=$skip 2>/dev/null || break
  n=$((n + {INPUT_BLOCK_BYTES}))
done
[ "$n" -lt {size} ] || n={size}
echo "$n"; rm -f "$f"; [ "$n" -lt {size} ] || rm -f {staged}
"""


def close_input_script(process_id: str) -> str:
    """The command that ends the input; what was sent before is still read."""
    return f"""\
cd {PROCESSES_DIRECTORY}/{process_id} 2>/dev/null || exit {_EXIT_UNKNOWN_PROCESS}
[ ! -f exit ] || exit 0
if mv holder closed 2>/dev/null; then kill "$(cat closed)"; fi
"""


def signal_script(process_id: str, name: str) -> str:
    """The command that signals the whole process group; to one that has ended, it does nothing."""
    return f"""\
cd {PROCESSES_DIRECTORY}/{process_id} 2>/dev/null || exit {_EXIT_UNKNOWN_PROCESS}
[ ! -f exit ] || exit 0
{_ALIVE_SCRIPT}alive || exit 0
kill -s {name} -- "-$child" 2>/dev/null || kill -s {name} "$child" 2>/dev/null || :
"""


def remove_script(process_id: str) -> str:
    """The command that removes what is kept of a process that has ended."""
    return f"""\
cd {PROCESSES_DIRECTORY}/{process_id} 2>/dev/null || exit 0
{_ALIVE_SCRIPT}[ -f exit ] || ! alive || {{ echo 'it still runs' >&2; exit 1; }}
rm -rf -- {PROCESSES_DIRECTORY}/{process_id}
"""


def read_output_or_raise(reply: Reply[ToolReply], process_id: str) -> str:
    """Return the output of one of these commands.

    Raises:
        CommandError: It failed.
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
