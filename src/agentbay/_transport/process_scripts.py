"""Shell scripts for background processes, for sessions that have no tools for them.

They run in any Linux session with `setsid` of util-linux, `mkfifo`, `env` and `base64`. Each process has a directory of
its own in the session, named by its id:

| file     | content                                                                          |
|----------|----------------------------------------------------------------------------------|
| `command`| the command, which the shell reads from there, so that it may have any length    |
| `label`  | its beginning, for lists                                                         |
| `stdout`, `stderr` | all output, so that any part can be read again                         |
| `stdin`  | a FIFO; `holder` is the pid of the process that keeps its writing end open       |
| `pid`    | pid of the process, which leads a process group, and of its supervisor           |
| `born`   | the supervisor's start time in clock ticks, which guards against reuse of its pid|
| `exit`   | the exit code, written by the supervisor in one step                             |
| `cancelled` | there is nothing else then: no process may start under this id any more          |
"""

from __future__ import annotations

import base64
import binascii
import re
import shlex
from collections.abc import Mapping

from .._wire.tools import ToolReply
from ..errors import CommandError, ReplyError
from .command import NOT_STARTED_EXIT_CODE, read_command_result
from .file_errors import read_file_error
from .processes import ProcessEntry, ProcessState, unknown_process_error
from .reply import Reply
from .shell_scripts import quote_path

_PROCESSES_PATH = ".agentbay/processes"
_PROCESSES_DIRECTORY = f'"$HOME"/{_PROCESSES_PATH}'
OUTPUT_CHUNK_BYTES = 48 * 1024  # bytes of output in one answer; base64 makes it a third longer
INPUT_BLOCK_BYTES = 4096  # PIPE_BUF: bytes that a FIFO takes atomically
MAX_LABEL_CHARACTERS = 2000
_EXIT_UNKNOWN_PROCESS, _EXIT_OUTPUT_LOST, _EXIT_ENDED = 81, 82, 83  # exit codes of the scripts below
_QUICK_POLL_SECONDS, _POLL_SECONDS = 0.05, 0.25  # seconds between polls inside the session
_QUICK_POLLS = 10
_CANNOT_FORK = re.compile(r"\b(?:cannot fork|fork: )", re.IGNORECASE)  # as dash, bash and the local runtime say it

# The session's PATH may lack what the scripts themselves need.
_FIND_TOOLS = "PATH=$PATH:/usr/local/bin:/usr/bin:/bin\n"

# The process inherits the session's variables. A script that assigns to one of them would change it for the process
# too, so the scripts that start it use only names that begin with `_agentbay`.
#
# The supervisor runs the process in the foreground, since a shell lets whatever it starts in the background ignore
# SIGINT. Opening one end of a FIFO blocks until the other end is opened, so it opens both at once (<>) first. The
# sleeping holder keeps the writing end open: otherwise the process would see the end of its input after the first
# piece. `pid` and `exit` appear by renaming, so that no reader finds them half written.
_SUPERVISOR_SCRIPT = """\
exec 9<>"$1/stdin" 8>"$1/stdin" 7<"$1/stdin" 9>&-
sleep 2147483647 7<&- > /dev/null 2>&1 &
_agentbay_holder=$!
exec 8>&-
echo "$_agentbay_holder" > "$1/holder"
read -r _agentbay_born < /proc/$$/stat
setsid sh -c {child} "$0" "$_agentbay_born" "$@" <&7 7<&- > "$1/stdout" 2> "$1/stderr"
echo $? > "$1/exit.new"; mv "$1/exit.new" "$1/exit"
kill "$_agentbay_holder"
"""
# The last of its arguments are the variables of the process. The shell that runs the command reads it from a descriptor
# that the command's first line closes.
_CHILD_SCRIPT = """\
_agentbay_born=${1##*) }; shift
cd -- "$2" 2>/dev/null || {
  if [ ! -e "$2" ]; then echo "cd: $2: No such file or directory"
  elif [ ! -d "$2" ]; then echo "cd: $2: Not a directory"
  else echo "cd: $2: Permission denied"; fi >&2
  exit 126
}
unset OLDPWD
_agentbay_dir=$1; _agentbay_path=$3; shift 3
_agentbay_field() { shift 19; echo "$1"; }
_agentbay_field $_agentbay_born > "$_agentbay_dir/born"
echo "$$ $PPID" > "$_agentbay_dir/pid.new"; mv "$_agentbay_dir/pid.new" "$_agentbay_dir/pid"
exec env -- "PATH=$_agentbay_path" "$@" "$(command -v sh)" -c '. /dev/fd/5' sh 5<"$_agentbay_dir/command"
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


def start_script(process_id: str, command: str, cwd: str | None, envs: Mapping[str, str], label: str) -> str:
    """Return the script that starts a process and prints its pid.

    It is idempotent: a process that was started under the same id is not started again.
    """
    where = quote_path(cwd) if cwd is not None else "."
    variables = " ".join(shlex.quote(f"{name}={value}") for name, value in envs.items())
    supervisor = shlex.quote(_SUPERVISOR_SCRIPT.replace("{child}", shlex.quote(_CHILD_SCRIPT)))
    # mkdir is atomic: of two calls with the same id, one starts the process, and the other waits for its pid. The umask
    # keeps the output private, and the process gets the one of the session back.
    return f"""\
_agentbay_path=$PATH
{_FIND_TOOLS}_agentbay_dir={_PROCESSES_DIRECTORY}/{process_id}
for _agentbay_tool in setsid mkfifo env; do
  command -v "$_agentbay_tool" >/dev/null || {{ echo "the session has no $_agentbay_tool" >&2; exit 69; }}
done
_agentbay_umask=$(umask); umask 077; mkdir -p {_PROCESSES_DIRECTORY} || exit
if mkdir "$_agentbay_dir" 2>/dev/null; then
  cat > "$_agentbay_dir/command" <<'END-{process_id}' || exit
exec 5<&-; {command}
END-{process_id}
  cat > "$_agentbay_dir/label" <<'END-{process_id}' || exit
{label[:MAX_LABEL_CHARACTERS]}
END-{process_id}
  mkfifo "$_agentbay_dir/stdin" && : > "$_agentbay_dir/stdout" && : > "$_agentbay_dir/stderr" || exit
  umask "$_agentbay_umask"
  setsid -f sh -c {supervisor} sh "$_agentbay_dir" {where} "$_agentbay_path" {variables} </dev/null >/dev/null 2>&1 ||
    {{ rm -r "$_agentbay_dir"; echo 'setsid -f failed: it is not of util-linux, or cannot fork' >&2; exit 70; }}
fi
_agentbay_n=0
until [ -f "$_agentbay_dir/pid" ] || [ -f "$_agentbay_dir/exit" ]; do
  [ ! -f "$_agentbay_dir/cancelled" ] || {{ echo 'its start was cancelled' >&2; exit 1; }}
  _agentbay_n=$((_agentbay_n+1))
  [ "$_agentbay_n" -lt 400 ] || {{ echo 'it did not start: perhaps the session cannot fork any more' >&2; exit 70; }}
  sleep 0.02
done
[ -f "$_agentbay_dir/pid" ] || {{ cat "$_agentbay_dir/stderr" >&2; rm -r "$_agentbay_dir"; exit 126; }}
cat "$_agentbay_dir/pid"
"""


def cancel_script(process_id: str) -> str:
    """Return the script that kills and removes a process.

    It lets none start under its id any more.
    """
    return f"""\
{_FIND_TOOLS}umask 077; mkdir -p {_PROCESSES_DIRECTORY} && cd {_PROCESSES_DIRECTORY} || exit
if mkdir {process_id} 2>/dev/null; then : > {process_id}/cancelled; exit; fi
cd {process_id} || exit
n=0; until [ -f pid ] || [ -f exit ] || [ "$n" -ge 100 ]; do n=$((n+1)); sleep 0.05; done
[ -f exit ] || {{ read -r child keeper < pid && kill -s KILL -- "-$child"; }}
n=0; until [ -f exit ] || [ "$n" -ge 100 ]; do n=$((n+1)); sleep 0.05; done
cd .. && rm -rf {process_id}
"""


def list_script() -> str:
    """Return the script that lists the processes, the newest last."""
    return f"""\
{_FIND_TOOLS}cd {_PROCESSES_DIRECTORY} 2>/dev/null || exit 0
{_ALIVE_SCRIPT}ls -tr */pid 2>/dev/null | while read -r file; do (
  cd "${{file%/pid}}" 2>/dev/null && read -r child keeper < pid || exit 0
  x=-; [ ! -f exit ] || read -r x < exit
  [ "$x" != - ] || alive || [ -f exit ] || x=lost
  printf '%s %s %s ' "${{file%/pid}}" "$child" "$x"; base64 < label | tr -d '\\n'; echo
); done
"""


def read_list(reply: Reply[ToolReply]) -> list[ProcessEntry]:
    """Return the processes from the answer to `list_script`.

    Raises:
        ReplyError: If the answer cannot be read.
    """
    found = []
    for line in _output_or_raise(reply, "").splitlines():
        try:
            process_id, pid, code, *label = line.split(" ")
            text = base64.b64decode("".join(label), validate=True).decode("utf-8", "replace")
            exit_code = None if code in ("-", "lost") else int(code)
            found.append(ProcessEntry(process_id, int(pid), text.removesuffix("\n"), exit_code))
        except (ValueError, binascii.Error):
            raise ReplyError("The list of processes cannot be read.", request_id=reply.request_id) from None
    return found


def process_directory(process_id: str) -> str:
    """Return the directory of a process, below the session's home."""
    return f"{_PROCESSES_PATH}/{process_id}"


def read_pid(reply: Reply[ToolReply], process_id: str, cwd: str | None) -> int:
    """Return the pid from the answer to `start_script`.

    Raises:
        FileError: If the working directory cannot be entered.
        CommandError: If the process was not started.
        ReplyError: If the answer has no pid.
    """
    result = read_command_result(reply)
    if cwd is not None and result.exit_code == NOT_STARTED_EXIT_CODE:
        error = read_file_error(result.error_message.strip(), cwd, request_id=reply.request_id)
        if error.errno is not None:
            raise error
    text = _output_or_raise(reply, process_id)
    try:
        return int(text.split()[0])
    except (ValueError, IndexError):
        raise ReplyError(f"{text!r:.80} is no pid", request_id=reply.request_id) from None


def follow_script(process_id: str, stream: str, offset: int, seconds: float) -> str:
    """Return the script that waits for output beyond `offset` bytes, or for the end.

    It prints the state and the new output. With `stream` "" it waits for the end only.
    """
    size = f"s=$(wc -c < {stream}) || exit {_EXIT_OUTPUT_LOST}" if stream else "s=0"
    polls = _QUICK_POLLS + int(max(0.0, seconds - _QUICK_POLLS * _QUICK_POLL_SECONDS) / _POLL_SECONDS)
    polls = polls if seconds else 0
    # The exit code is read before the size, so that the size that comes with it is not one from before the end. `exit`
    # is looked for again when the supervisor is gone, since it may have written it in between.
    return f"""\
{_FIND_TOOLS}cd {_PROCESSES_DIRECTORY}/{process_id} 2>/dev/null || exit {_EXIT_UNKNOWN_PROCESS}
{_ALIVE_SCRIPT}n=0
while :; do
  x=-; [ ! -f exit ] || read -r x < exit
  [ "$x" != - ] || alive || [ -f exit ] || x=lost
  {size}
  [ "$s" -eq {offset} ] && [ "$x" = - ] && [ "$n" -lt {polls} ] || break
  n=$((n+1)); t={_POLL_SECONDS}; [ "$n" -gt {_QUICK_POLLS} ] || t={_QUICK_POLL_SECONDS}
  sleep "$t"
done
[ "$s" -ge {offset} ] || exit {_EXIT_OUTPUT_LOST}
echo $x $s
[ "$s" = {offset} ] || tail -c +{offset + 1} {stream or "/dev/null"} | head -c {OUTPUT_CHUNK_BYTES} | base64
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
{_FIND_TOOLS}cd {_PROCESSES_DIRECTORY}/{process_id} 2>/dev/null || exit {_EXIT_UNKNOWN_PROCESS}
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
{_FIND_TOOLS}cd {_PROCESSES_DIRECTORY}/{process_id} 2>/dev/null || exit {_EXIT_UNKNOWN_PROCESS}
[ ! -f exit ] || exit 0
if mv holder closed 2>/dev/null; then kill "$(cat closed)"; fi
"""


def signal_script(process_id: str, number: int) -> str:
    """Return the script that signals the whole process group, unless it has ended."""
    return f"""\
{_FIND_TOOLS}cd {_PROCESSES_DIRECTORY}/{process_id} 2>/dev/null || exit {_EXIT_UNKNOWN_PROCESS}
[ ! -f exit ] || exit 0
{_ALIVE_SCRIPT}alive || exit 0
kill -s {number} -- "-$child" 2>/dev/null || kill -s {number} "$child" 2>/dev/null || :
"""


def remove_script(process_id: str) -> str:
    """Return the script that removes the directory of a process that has ended."""
    return f"""\
{_FIND_TOOLS}cd {_PROCESSES_DIRECTORY}/{process_id} 2>/dev/null || exit 0
{_ALIVE_SCRIPT}[ -f exit ] || ! alive || {{ echo 'it still runs' >&2; exit 1; }}
rm -rf -- {_PROCESSES_DIRECTORY}/{process_id}
"""


def is_out_of_processes(error: CommandError) -> bool:
    """Return whether the session could not start a process for a script."""
    return _CANNOT_FORK.search(error.message) is not None


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
    if result.exit_code == _EXIT_UNKNOWN_PROCESS:
        raise unknown_process_error(process_id, reply.request_id)
    why = {
        _EXIT_OUTPUT_LOST: f"Output of process {process_id} is lost: "
        "somebody removed or shortened its file in the session.",
        _EXIT_ENDED: f"Process {process_id} does not take input any more.",
    }.get(result.exit_code, f"Process {process_id}: {result.error_message.strip()}")
    raise CommandError(why, request_id=reply.request_id)
