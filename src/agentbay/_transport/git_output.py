"""Read the output of git, and find out why it failed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from ..errors import (
    CommandError,
    CommandTimeoutError,
    GitAuthError,
    GitConflictError,
    GitError,
    GitNotARepoError,
    GitNotFoundError,
    GitRejectedError,
    GitTimeoutError,
)
from ..models.command import CommandResult
from ..models.git import (
    GitBranchInfo,
    GitDiffFile,
    GitFileStatus,
    GitLogEntry,
    GitRefUpdate,
    GitStatusResult,
)
from .git import GitCommand
from .redaction import find_secrets, redact

_E = TypeVar("_E", bound=GitError)


class GitOutput(NamedTuple):
    """The output of a git command that ran, with whatever exit code."""

    request_id: str
    exit_code: int
    stdout: str
    stderr: str


_EXECUTION_FAILED = re.compile(r"Error code:\s*(-?\d+)\s*Error message:\s*(.*)", re.DOTALL)

# In the order in which they are tried. Each is the exact wording of one program, so that other output does not match.
_ERROR_PATTERNS: tuple[tuple[type[GitError], re.Pattern[str]], ...] = (
    (
        GitAuthError,
        re.compile(
            r"(?im)authentication failed|could not read (?:username|password)|invalid username or password"
            r"|invalid credentials|authorization failed|access denied|returned error: 40[13]\b|\bHTTP 40[13]\b"
            r"|permission denied \(|^remote: .*permission .*denied"  # otherwise a local file is denied
        ),
    ),
    (GitNotARepoError, re.compile(r"(?i)not a git repository|does not appear to be a git repository")),
    (
        GitConflictError,
        re.compile(
            r"(?m)^CONFLICT \(|(?i:merge conflict in|automatic merge failed|unmerged files|unresolved conflict"
            r"|resolve your current index first|^error: could not apply |^\S.*: needs merge$)"
        ),
    ),
    (GitNotFoundError, re.compile(r"(?i)\bgit: (?:command )?not found")),
)
_HINTS: dict[type[GitError], str] = {
    GitAuthError: "Check the user name and the token or key; git cannot ask for them in a session.",
    GitNotFoundError: "Use an image that has git, or install it in the session.",
    GitConflictError: "`status()` lists the files; resolve them, then add and commit, or reset.",
    GitTimeoutError: "Give it a longer timeout.",
}
_REJECTED_AS_BEHIND = re.compile(r"\((?:fetch first|non-fast-forward|stale info)\)")
_PROXY_REFUSAL = re.compile(r"CONNECT tunnel failed, response 403|from proxy after CONNECT")
_PROXY_HINT = "The session's network does not allow this host: name it in allow_hosts= of local(), or in --allow-host."
_REJECTED_HINT = "Pull first, or push with force if the remote's commits may be lost."


def read_output(job: GitCommand, result: CommandResult) -> GitOutput:
    """Return the output of a git command, with whatever exit code.

    Raises:
        GitTimeoutError: If it was killed at its time limit.
        AgentBayError: If it could not be run.
    """
    reason = result.exception
    if isinstance(reason, CommandTimeoutError):
        raise _make_error(
            GitTimeoutError, job, GitOutput(reason.request_id, -1, reason.stdout, reason.stderr), reason.message
        )
    if isinstance(reason, CommandError):
        return _output_of_failed_run(result)
    if reason is not None:
        raise reason
    if result.truncated:
        output = GitOutput(result.request_id, result.exit_code, result.stdout, result.stderr)
        raise _make_error(GitError, job, output, "it writes more than the service returns in one answer")
    return GitOutput(result.request_id, result.exit_code, result.stdout, result.stderr)


def _output_of_failed_run(result: CommandResult) -> GitOutput:
    # Some services report a failed command as one text: "Execution failed. Error code:127 Error message: ..."
    found = _EXECUTION_FAILED.search(result.error_message)
    code, text = (int(found[1]), found[2]) if found else (result.exit_code, result.error_message)
    return GitOutput(result.request_id, code, "", text)


def check_success(job: GitCommand, output: GitOutput) -> GitOutput:
    """Return the output of a command that exited with 0.

    Raises:
        GitError: If it exited with another code; the subclass says why.
    """
    if output.exit_code == 0:
        return output
    kind = _error_class(output)
    reason = _error_lines(output.stderr)
    if kind is GitConflictError:
        reason = "; ".join(re.findall(r"(?m)^CONFLICT .*$", output.stdout + "\n" + output.stderr)) or reason
    if kind is GitRejectedError:
        reason = "; ".join(
            _format_rejection(update) for update in read_push(output.stdout)[1] if update.status == "rejected"
        )
    raise _make_error(kind, job, output, reason or _error_lines(output.stdout))


def git_not_found(output: GitOutput) -> GitNotFoundError:
    """Return the error for a session in which `git --version` fails."""
    job = GitCommand("version", "")
    return _make_error(
        GitNotFoundError, job, output._replace(exit_code=output.exit_code or 127), _error_lines(output.stderr)
    )


def _error_class(output: GitOutput) -> type[GitError]:
    for kind, pattern in _ERROR_PATTERNS:
        # Git reports conflicts on standard output; nothing else there is about git's own failure.
        if pattern.search(output.stderr) or (kind is GitConflictError and pattern.search(output.stdout)):
            return kind
    if re.search(r"(?m)^!\t", output.stdout):
        return GitRejectedError
    return GitNotFoundError if output.exit_code == GitNotFoundError.default_exit_code else GitError


def _error_lines(text: str) -> str:
    """Return the lines that git marks as errors, else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("hint:")]
    faults = [line for line in lines if re.match(r"(?:fatal|error|remote: error): ", line)]
    return "; ".join(faults or lines[-1:])


def _format_rejection(update: GitRefUpdate) -> str:
    return f"{update.destination} {update.summary}{f' ({update.reason})' if update.reason else ''}"


def _make_error(kind: type[_E], job: GitCommand, output: GitOutput, reason: str) -> _E:
    # The quoting of the shell is undone, since git prints the argument as it got it.
    secrets = find_secrets(job.command.replace("'\\''", "'"))
    message = f"git {job.name} failed (exit code {output.exit_code}){f': {reason}' if reason else '.'}"
    return kind(
        redact(message, *secrets),
        output.exit_code,
        redact(output.stderr, *secrets),
        stdout=redact(output.stdout, *secrets),
        hint=_hint(kind, reason),
        request_id=output.request_id,
    )


def _hint(kind: type[GitError], reason: str) -> str:
    if _PROXY_REFUSAL.search(reason):
        return _PROXY_HINT
    return _HINTS.get(kind, "") or (_REJECTED_HINT if _REJECTED_AS_BEHIND.search(reason) else "")


_PATH = r'"(?:[^"\\]|\\.)*"|.+?'
_RENAME = re.compile(rf"({_PATH}) -> ({_PATH})")
_ESCAPED = re.compile(r'\\([abfnrtv"\\]|[0-7]{3})')
_ESCAPES = dict(zip('abfnrtv"\\', '\a\b\f\n\r\t\v"\\', strict=True))
_STATUS_LABELS = {
    "U": "conflict",
    "R": "renamed",
    "C": "copied",
    "D": "deleted",
    "A": "added",
    "M": "modified",
    "T": "typechange",
    "?": "untracked",
}
_BOTH_SIDES_CODES = ("AA", "DD")  # added, or deleted, on both sides of a merge
_BRANCH_HEADER = re.compile(
    r"## (?:No commits yet on |Initial commit on )?(?P<branch>\S+?)(?:\.\.\.(?P<upstream>\S+))?"
    r"(?: \[(?:gone|(?:ahead (?P<ahead>\d+))?(?:, )?(?:behind (?P<behind>\d+))?)\])?"
)
_COMMIT_LINE = re.compile(r"(?m)^\[(?:detached HEAD|\S+)(?: \(root-commit\))? ([0-9a-f]{4,64})\]")
_FETCH_LINE = re.compile(
    r" (?P<flag>[ +\-t*!=]) (?P<summary>\[[^\]]+\]|\S+)\s+(?P<source>\S+)\s+-> (?P<destination>\S+)"
    r"(?:\s+\((?P<reason>.*)\))?"
)
_REF_UPDATE_FLAGS = {
    " ": "updated",
    "+": "forced",
    "-": "deleted",
    "t": "tag",
    "*": "new",
    "!": "rejected",
    "=": "up to date",
}
_NUMSTAT_LINE = re.compile(r"(\d+|-)\t(\d+|-)\t(.*)", re.DOTALL)


def unquote_path(path: str) -> str:
    """Decode a path that git may have quoted like a C string.

    Bytes that are not UTF-8 stay escaped.
    """
    if not (path.startswith('"') and path.endswith('"') and len(path) > 1):
        return path
    data = b"".join(_unescape(path[1:-1]))
    return data.decode(errors="backslashreplace")


def _unescape(text: str) -> Iterator[bytes]:
    end = 0
    for match in _ESCAPED.finditer(text):
        yield text[end : match.start()].encode()
        code = match[1]
        yield _ESCAPES[code].encode() if code in _ESCAPES else bytes([int(code, 8) & 0xFF])
        end = match.end()
    yield text[end:].encode()


def read_status(output: GitOutput) -> GitStatusResult:
    """Read the output of `status --porcelain=1 -b`."""
    result = GitStatusResult(request_id=output.request_id)
    for line in output.stdout.split("\n"):
        if line.startswith("## "):
            _read_header(line, result)
        elif len(line) > 3:
            result.files.append(_read_change(line[:2], line[3:]))
    return result


def _read_header(line: str, result: GitStatusResult) -> None:
    if line == "## HEAD (no branch)":
        result.detached = True
    elif header := _BRANCH_HEADER.fullmatch(line):
        result.current_branch, result.upstream = header["branch"], header["upstream"]
        result.ahead, result.behind = int(header["ahead"] or 0), int(header["behind"] or 0)


def _read_change(letters: str, rest: str) -> GitFileStatus:
    renamed = _RENAME.fullmatch(rest) if set(letters) & set("RC") else None
    old, new = (renamed[1], renamed[2]) if renamed else (None, rest)
    label = next((label for letter, label in _STATUS_LABELS.items() if letter in letters), "unknown")
    return GitFileStatus(
        path=unquote_path(new),
        status="conflict" if letters in _BOTH_SIDES_CODES else label,
        index_status=letters[0],
        work_tree_status=letters[1],
        staged=letters[0] not in " ?",
        renamed_from=None if old is None else unquote_path(old),
    )


def read_log(text: str) -> list[GitLogEntry]:
    """Read commits: a field ends with 0x01, a commit with NUL and a newline."""
    commits = (commit.split("\x01", 5) for commit in re.split(r"[\0\n]+", text))
    return [GitLogEntry(*fields) for fields in commits if len(fields) == 6]


def read_branches(text: str) -> list[GitBranchInfo]:
    """Read `name TAB *` lines.

    A name with a space is no branch: it describes a detached HEAD.
    """
    pairs = (line.partition("\t") for line in text.split("\n"))
    return [GitBranchInfo(name, mark.strip() == "*") for name, _, mark in pairs if name and " " not in name]


def read_commit(text: str) -> str | None:
    """Return the hash in the output of `commit`, or None."""
    found = _COMMIT_LINE.search(text)
    return found[1] if found else None


def read_fetch(text: str) -> list[GitRefUpdate]:
    """Read the updates that `fetch` reports on its standard error.

    References that are up to date, and FETCH_HEAD, are left out.
    """
    found = filter(None, map(_FETCH_LINE.fullmatch, text.split("\n")))
    return [
        GitRefUpdate(
            status=_REF_UPDATE_FLAGS[update["flag"]],
            source="" if update["source"] == "(none)" else update["source"],
            destination=update["destination"],
            summary=update["summary"],
            reason=update["reason"] or "",
        )
        for update in found
        if update["flag"] != "=" and update["destination"] != "FETCH_HEAD"
    ]


def read_push(text: str) -> tuple[str, list[GitRefUpdate]]:
    """Read `push --porcelain`: the remote's URL, and the update of each reference."""
    remote, updates = "", []
    for line in text.split("\n"):
        if line.startswith("To "):
            remote = redact(line[3:])
        elif len(fields := line.split("\t")) == 3 and fields[0] in _REF_UPDATE_FLAGS:
            source, _, destination = fields[1].partition(":")
            summary, reason = _split_reason(fields[2])
            updates.append(GitRefUpdate(_REF_UPDATE_FLAGS[fields[0]], source, destination, summary, reason))
    return remote, updates


def _split_reason(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"(.*?) \((.*)\)", text)
    return (found[1], found[2]) if found else (text, "")


def read_git_diff(text: str) -> tuple[list[GitDiffFile], str]:
    """Read `diff --raw --numstat -z` and the patch after it."""
    files: dict[str, GitDiffFile] = {}
    rest = text
    while rest.startswith(":") or _NUMSTAT_LINE.match(rest):
        head, _, rest = rest.partition("\0")
        if head.startswith(":"):
            rest = _read_raw(head, rest, files)
        else:
            rest = _read_numstat(head, rest, files)
    return list(files.values()), rest


def _read_raw(head: str, rest: str, files: dict[str, GitDiffFile]) -> str:
    letter = head.rpartition(" ")[2][:1]
    status = "conflict" if head.startswith("::") else _STATUS_LABELS.get(letter, "unknown")
    old, (path, _, rest) = None, rest.partition("\0")
    if letter in "RC" and not head.startswith("::"):
        old, (path, _, rest) = path, rest.partition("\0")
    if path not in files or status == "conflict":
        files[path] = GitDiffFile(path, status, renamed_from=old)
    return rest


def _read_numstat(head: str, rest: str, files: dict[str, GitDiffFile]) -> str:
    numbers = _NUMSTAT_LINE.fullmatch(head)
    assert numbers is not None
    path = numbers[3]
    if not path:  # a renamed file, whose two names follow
        _, path, rest = rest.split("\0", 2)
    file = files.get(path)
    if file is not None:
        file.is_binary = numbers[1] == "-"
        if not file.is_binary:
            file.additions, file.deletions = int(numbers[1]), int(numbers[2])
    return rest
