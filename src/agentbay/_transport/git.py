"""Git commands, written for a shell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from ..errors import InvalidArgumentError

ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}  # asks nobody, speaks English
USUAL_MS, CLONE_MS, TRANSFER_MS = 30_000, 300_000, 120_000
MODES = ("soft", "mixed", "hard", "merge", "keep")
LOG_FORMAT = "%H%x01%h%x01%an%x01%ae%x01%aI%x01%s%x00"
BRANCH_FORMAT = "%(refname:short)\t%(HEAD)"
_LASTING_DIFF = ("--no-color", "--no-ext-diff", "--find-renames")  # whatever the user's settings are


class Job(NamedTuple):
    """What is done, for messages; and the shell command that does it."""

    name: str
    command: str
    timeout_ms: int = USUAL_MS


def quoted(text: str) -> str:
    """Write an argument so that a shell gives back exactly it.

    Raises:
        InvalidArgumentError: If it has a NUL, which no argument can hold.
    """
    if "\0" in text:
        raise InvalidArgumentError("An argument of git cannot contain a NUL character.")
    return "'" + text.replace("'", "'\\''") + "'"


def command(arguments: Iterable[str], repo: str | None = None) -> str:
    """Write a call of git, in the directory `repo` if there is one."""
    where = [] if repo is None else ["-C", quoted(repo)]
    return " ".join(["git", *where, *map(quoted, arguments)])


def _job(name: str, repo: str | None, *arguments: str, timeout_ms: int = USUAL_MS) -> Job:
    return Job(name, command(arguments, repo), timeout_ms)


def _no_option(**values: str | None) -> None:
    """Refuse what git would take for an option: given by a stranger, it could run a program."""
    for name, value in values.items():
        if value is not None and value.startswith("-"):
            raise InvalidArgumentError(f"{name} must not begin with '-': {value!r:.80}")


def _given(*values: str | None) -> list[str]:
    return [value for value in values if value]


VERSION = _job("version", None, "--version")


def clone_target(url: str) -> str:
    """The directory that a clone of this URL goes to, if the user names none.

    Raises:
        InvalidArgumentError: If the URL tells none.
    """
    place = re.sub(r"^[\w+.-]+://(?:[^/]*@)?", "", url)
    if re.match(r"https?://", url):
        place = re.sub(r"[?#].*", "", place)
    name = unquote(re.split(r"[/:]", place.rstrip("/"))[-1].removesuffix(".git"))
    if name in ("", ".", "..") or "/" in name or name.startswith("-"):
        raise InvalidArgumentError("The URL does not tell what the clone is called; give `path`.")
    return name


def clone(url: str, target: str, branch: str | None, depth: int | None) -> Job:
    _no_option(url=url, path=target, branch=branch)
    options = ["--branch", branch, "--single-branch"] if branch else []
    depths = ["--depth", str(depth)] if depth else []
    return _job("clone", None, "clone", *options, *depths, url, target, timeout_ms=CLONE_MS)


def init(path: str, initial_branch: str | None, bare: bool) -> Job:
    _no_option(path=path, initial_branch=initial_branch)
    branch = ["--initial-branch", initial_branch] if initial_branch else []
    return _job("init", None, "init", *branch, *(["--bare"] if bare else []), path)


def add(repo: str, files: Sequence[str] | None, stage_all: bool) -> Job:
    return _job("add", repo, "add", *(["--", *files] if files else ["-A"] if stage_all else ["."]))


def commit(repo: str, message: str, name: str | None, email: str | None, allow_empty: bool) -> Job:
    author = [f"user.{key}={value}" for key, value in (("name", name), ("email", email)) if value]
    settings = [word for setting in author for word in ("-c", setting)]
    return _job("commit", repo, *settings, "commit", "-m", message, *(["--allow-empty"] if allow_empty else []))


def status(repo: str) -> Job:
    return _job("status", repo, "status", "--porcelain=1", "-b")


def log(repo: str, max_count: int | None) -> Job:
    limit = ["--max-count", str(max_count)] if max_count else []
    return _job("log", repo, "log", f"--format={LOG_FORMAT}", *limit)


def list_branches(repo: str) -> Job:
    return _job("branch", repo, "branch", f"--format={BRANCH_FORMAT}")


def create_branch(repo: str, branch: str, checkout: bool) -> Job:
    _no_option(branch=branch)
    return _job("checkout", repo, "checkout", "-b", branch) if checkout else _job("branch", repo, "branch", branch)


def checkout_branch(repo: str, branch: str) -> Job:
    if branch != "-":  # the branch before this one
        _no_option(branch=branch)
    return _job("checkout", repo, "checkout", branch)


def delete_branch(repo: str, branch: str, force: bool) -> Job:
    _no_option(branch=branch)
    return _job("branch", repo, "branch", "-D" if force else "-d", branch)


def remote_add(repo: str, name: str, url: str, fetch: bool, overwrite: bool) -> Job:
    _no_option(name=name, url=url)
    line = command(["remote", "add", *(["-f"] if fetch else []), name, url], repo)
    if overwrite:
        line += " || " + command(["remote", "set-url", name, url], repo)
        if fetch:
            line = f"({line}) && " + command(["fetch", name], repo)
    return Job("remote add", line)


def remote_get(repo: str, name: str) -> Job:
    _no_option(name=name)
    return _job("remote get-url", repo, "remote", "get-url", name)


def reset(repo: str, mode: str | None, target: str | None, paths: Sequence[str] | None) -> Job:
    if mode and mode not in MODES:
        raise InvalidArgumentError(f"Invalid reset mode: {mode!r}. Must be one of {sorted(MODES)}")
    _no_option(target=target)
    modes = [f"--{mode}"] if mode else []
    return _job("reset", repo, "reset", *modes, *_given(target), *(["--", *paths] if paths else []))


def restore(repo: str, paths: Sequence[str], staged: bool, worktree: bool | None, source: str | None) -> Job:
    _no_option(source=source)
    places = ["--worktree"] if worktree or (worktree is None and not staged) else []
    places += ["--staged"] if staged else []
    sources = ["--source", source] if source else []
    return _job("restore", repo, "restore", *places, *sources, "--", *paths)


def pull(repo: str, remote: str | None, branch: str | None) -> Job:
    _no_option(remote=remote, branch=branch)
    return _job("pull", repo, "pull", *_given(remote, branch), timeout_ms=TRANSFER_MS)


def fetch(repo: str, remote: str | None, branch: str | None, prune: bool, tags: bool, depth: int | None) -> Job:
    _no_option(remote=remote, branch=branch)
    options = [*(["--prune"] if prune else []), *(["--tags"] if tags else [])]
    depths = ["--depth", str(depth)] if depth else []
    source = _given(remote or ("origin" if branch else None), branch)
    words = ["-c", "fetch.output=full", "fetch", *options, *depths, *source]
    return _job("fetch", repo, *words, timeout_ms=TRANSFER_MS)


def push(repo: str, remote: str | None, branch: str | None, /, **options: bool) -> Job:
    _no_option(remote=remote, branch=branch)
    if options.get("delete") and not branch:
        raise InvalidArgumentError("delete needs `branch`: the branch to delete at the remote.")
    chosen = [f"--{name.replace('_', '-')}" for name, wanted in options.items() if wanted]
    # Without a name, "HEAD" is the current branch under its own name; git itself may want a setting for that.
    named = branch or ("HEAD" if remote or options.get("set_upstream") or options.get("tags") else None)
    target = _given(remote or ("origin" if named else None), named)
    return _job("push", repo, "push", "--porcelain", *chosen, *target, timeout_ms=TRANSFER_MS)


def diff(repo: str, base: str | None, target: str | None, staged: bool, paths: Sequence[str] | None) -> Job:
    _no_option(base=base, target=target)
    if target and (staged or not base):
        raise InvalidArgumentError("target needs `base`, and cannot go with `staged`, which compares with the index.")
    what = [*(["--cached"] if staged else []), *_given(base, target), "--", *(paths or ())]
    # Two calls, since git leaves conflicts out of a patch that it lists files beside.
    listing = command(["diff", *_LASTING_DIFF, "--raw", "--numstat", "-z", *what], repo)
    prefixes = ["--src-prefix=a/", "--dst-prefix=b/"]
    return Job("diff", f"{listing} && {command(['diff', *_LASTING_DIFF, '--patch', *prefixes, *what], repo)}")


def set_config(repo: str, key: str, value: str, scope: str) -> Job:
    _no_option(key=key)
    # Only where it is needed, so that the line is the published client's where that one works.
    guard = ["--"] if value.startswith("-") else []
    return _job("config", repo, "config", _scope(scope), *guard, key, value)


def get_config(repo: str, key: str, scope: str) -> Job:
    _no_option(key=key)
    return _job("config", repo, "config", _scope(scope), "--get", key)


def _scope(scope: str) -> str:
    if scope not in ("global", "local"):
        raise InvalidArgumentError(f"scope must be 'global' or 'local', not {scope!r}")
    return f"--{scope}"
