"""Git command lines, quoted for a shell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from ..errors import InvalidArgumentError

GIT_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}  # no prompts, which nobody would answer; English, which is parsed
GIT_TIMEOUT_MS, CLONE_TIMEOUT_MS, REMOTE_TIMEOUT_MS = 30_000, 300_000, 120_000  # the published client's defaults
RESET_MODES = ("soft", "mixed", "hard", "merge", "keep")
LOG_FORMAT = "%H%x01%h%x01%an%x01%ae%x01%aI%x01%s%x00"
BRANCH_FORMAT = "%(refname:short)\t%(HEAD)"
_DIFF_OPTIONS = (
    "--no-color",
    "--no-ext-diff",
    "--find-renames",
)  # against settings of the user that would change the format


class GitCommand(NamedTuple):
    """A git command: its name for messages, its command line, and its time limit."""

    name: str
    command: str
    timeout_ms: int = GIT_TIMEOUT_MS


def quote_argument(text: str) -> str:
    """Quote an argument for a shell.

    Raises:
        InvalidArgumentError: If it has a NUL character, which no argument can hold.
    """
    if "\0" in text:
        raise InvalidArgumentError("An argument of git cannot contain a NUL character.")
    return "'" + text.replace("'", "'\\''") + "'"


def git_command_line(arguments: Iterable[str], repo: str | None = None) -> str:
    """Return a git command line, run in the directory `repo` if there is one."""
    where = [] if repo is None else ["-C", quote_argument(repo)]
    return " ".join(["git", *where, *map(quote_argument, arguments)])


def _make_command(name: str, repo: str | None, *arguments: str, timeout_ms: int = GIT_TIMEOUT_MS) -> GitCommand:
    return GitCommand(name, git_command_line(arguments, repo), timeout_ms)


def _refuse_options(**values: str | None) -> None:
    """Refuse values that git would read as options (argument injection).

    Such an option could run a program.
    """
    for name, value in values.items():
        if value is not None and value.startswith("-"):
            raise InvalidArgumentError(f"{name} must not begin with '-': {value!r:.80}")


def _non_empty(*values: str | None) -> list[str]:
    return [value for value in values if value]


VERSION_COMMAND = _make_command("version", None, "--version")


def clone_target(url: str) -> str:
    """Return the directory that git clones a URL to by default.

    Raises:
        InvalidArgumentError: If the URL has no name in it.
    """
    location = re.sub(r"^[\w+.-]+://(?:[^/]*@)?", "", url)
    if re.match(r"https?://", url):
        location = re.sub(r"[?#].*", "", location)
    name = unquote(re.split(r"[/:]", location.rstrip("/"))[-1].removesuffix(".git"))
    if name in ("", ".", "..") or "/" in name or name.startswith("-"):
        raise InvalidArgumentError("The URL does not end with a name for the clone; give `path`.")
    return name


def clone(url: str, target: str, branch: str | None, depth: int | None) -> GitCommand:
    _refuse_options(url=url, path=target, branch=branch)
    options = ["--branch", branch, "--single-branch"] if branch else []
    depths = ["--depth", str(depth)] if depth else []
    return _make_command("clone", None, "clone", *options, *depths, url, target, timeout_ms=CLONE_TIMEOUT_MS)


def init(path: str, initial_branch: str | None, bare: bool) -> GitCommand:
    _refuse_options(path=path, initial_branch=initial_branch)
    branch = ["--initial-branch", initial_branch] if initial_branch else []
    return _make_command("init", None, "init", *branch, *(["--bare"] if bare else []), path)


def add(repo: str, files: Sequence[str] | None, stage_all: bool) -> GitCommand:
    return _make_command("add", repo, "add", *(["--", *files] if files else ["-A"] if stage_all else ["."]))


def commit(repo: str, message: str, name: str | None, email: str | None, allow_empty: bool) -> GitCommand:
    author = [f"user.{key}={value}" for key, value in (("name", name), ("email", email)) if value]
    # Not --author: git refuses to commit without a committer too, and -c changes no configuration file.
    settings = [word for setting in author for word in ("-c", setting)]
    return _make_command(
        "commit", repo, *settings, "commit", "-m", message, *(["--allow-empty"] if allow_empty else [])
    )


def status(repo: str) -> GitCommand:
    return _make_command("status", repo, "status", "--porcelain=1", "-b")


def log(repo: str, max_count: int | None) -> GitCommand:
    limit = ["--max-count", str(max_count)] if max_count else []
    return _make_command("log", repo, "log", f"--format={LOG_FORMAT}", *limit)


def list_branches(repo: str) -> GitCommand:
    return _make_command("branch", repo, "branch", f"--format={BRANCH_FORMAT}")


def create_branch(repo: str, branch: str, checkout: bool) -> GitCommand:
    _refuse_options(branch=branch)
    return (
        _make_command("checkout", repo, "checkout", "-b", branch)
        if checkout
        else _make_command("branch", repo, "branch", branch)
    )


def checkout_branch(repo: str, branch: str) -> GitCommand:
    if branch != "-":  # git's name for the previous branch
        _refuse_options(branch=branch)
    # Without `--`, git takes a name that is no branch for a file.
    return _make_command("checkout", repo, "checkout", branch, "--")


def delete_branch(repo: str, branch: str, force: bool) -> GitCommand:
    _refuse_options(branch=branch)
    return _make_command("branch", repo, "branch", "-D" if force else "-d", branch)


def remote_add(repo: str, name: str, url: str, fetch: bool, overwrite: bool) -> GitCommand:
    _refuse_options(name=name, url=url)
    line = git_command_line(["remote", "add", *(["-f"] if fetch else []), name, url], repo)
    if overwrite:
        line += " || " + git_command_line(["remote", "set-url", name, url], repo)
        if fetch:
            line = f"({line}) && " + git_command_line(["fetch", name], repo)
    return GitCommand("remote add", line)


def remote_get(repo: str, name: str) -> GitCommand:
    _refuse_options(name=name)
    return _make_command("remote get-url", repo, "remote", "get-url", name)


def reset(repo: str, mode: str | None, target: str | None, paths: Sequence[str] | None) -> GitCommand:
    if mode and mode not in RESET_MODES:
        raise InvalidArgumentError(f"Invalid reset mode: {mode!r}. Must be one of {sorted(RESET_MODES)}")
    _refuse_options(target=target)
    modes = [f"--{mode}"] if mode else []
    return _make_command("reset", repo, "reset", *modes, *_non_empty(target), "--", *(paths or ()))


def restore(repo: str, paths: Sequence[str], staged: bool, worktree: bool | None, source: str | None) -> GitCommand:
    _refuse_options(source=source)
    targets = ["--worktree"] if worktree or (worktree is None and not staged) else []
    targets += ["--staged"] if staged else []
    sources = ["--source", source] if source else []
    return _make_command("restore", repo, "restore", *targets, *sources, "--", *paths)


def pull(repo: str, remote: str | None, branch: str | None) -> GitCommand:
    _refuse_options(remote=remote, branch=branch)
    return _make_command("pull", repo, "pull", *_non_empty(remote, branch), timeout_ms=REMOTE_TIMEOUT_MS)


def fetch(repo: str, remote: str | None, branch: str | None, prune: bool, tags: bool, depth: int | None) -> GitCommand:
    _refuse_options(remote=remote, branch=branch)
    options = [*(["--prune"] if prune else []), *(["--tags"] if tags else [])]
    depths = ["--depth", str(depth)] if depth else []
    source = _non_empty(remote or ("origin" if branch else None), branch)
    # A user may have set the compact form, which abbreviates the names of references.
    words = ["-c", "fetch.output=full", "fetch", *options, *depths, *source]
    return _make_command("fetch", repo, *words, timeout_ms=REMOTE_TIMEOUT_MS)


def push(repo: str, remote: str | None, branch: str | None, /, **options: bool) -> GitCommand:
    _refuse_options(remote=remote, branch=branch)
    if options.get("delete") and not branch:
        raise InvalidArgumentError("delete needs `branch`: the branch to delete at the remote.")
    chosen = [f"--{name.replace('_', '-')}" for name, is_set in options.items() if is_set]
    # "HEAD" pushes the current branch under its own name; without it git may require a setting.
    named = branch or ("HEAD" if remote or options.get("set_upstream") or options.get("tags") else None)
    target = _non_empty(remote or ("origin" if named else None), named)
    return _make_command("push", repo, "push", "--porcelain", *chosen, *target, timeout_ms=REMOTE_TIMEOUT_MS)


def diff(repo: str, base: str | None, target: str | None, staged: bool, paths: Sequence[str] | None) -> GitCommand:
    _refuse_options(base=base, target=target)
    if target and (staged or not base):
        raise InvalidArgumentError("target needs `base`, and cannot go with `staged`, which compares with the index.")
    what = [*(["--cached"] if staged else []), *_non_empty(base, target), "--", *(paths or ())]
    # Two calls, since git leaves conflicts out of a patch when the same call lists files.
    listing = git_command_line(["diff", *_DIFF_OPTIONS, "--raw", "--numstat", "-z", *what], repo)
    prefixes = ["--src-prefix=a/", "--dst-prefix=b/"]
    return GitCommand(
        "diff", f"{listing} && {git_command_line(['diff', *_DIFF_OPTIONS, '--patch', *prefixes, *what], repo)}"
    )


def set_config(repo: str, key: str, value: str, scope: str) -> GitCommand:
    _refuse_options(key=key)
    # Only where it is needed: elsewhere the command line equals the published client's.
    separator = ["--"] if value.startswith("-") else []
    return _make_command("config", repo, "config", _scope_option(scope), *separator, key, value)


def get_config(repo: str, key: str, scope: str) -> GitCommand:
    _refuse_options(key=key)
    return _make_command("config", repo, "config", _scope_option(scope), "--get", key)


def _scope_option(scope: str) -> str:
    if scope not in ("global", "local"):
        raise InvalidArgumentError(f"scope must be 'global' or 'local', not {scope!r}")
    return f"--{scope}"
