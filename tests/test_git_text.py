"""Git command lines and git's output, against the real `sh` and `git`."""

from __future__ import annotations

import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings, strategies as st

from agentbay import (
    CommandError,
    CommandTimeoutError,
    ConnectionLost,
    GitAuthError,
    GitConflictError,
    GitError,
    GitNotARepoError,
    GitNotFoundError,
    GitRefUpdate,
    GitRejectedError,
    GitTimeoutError,
    InvalidArgumentError,
)
from agentbay._transport import git
from agentbay._transport.git import GitCommand, clone_target, git_command_line, quote_argument
from agentbay._transport.git_output import (
    GitOutput,
    check_success,
    read_branches,
    read_commit,
    read_fetch,
    read_git_diff,
    read_log,
    read_output,
    read_push,
    read_status,
    unquote_path,
)
from agentbay._transport.redaction import redact
from agentbay.models.command import CommandResult
from tests.http_server import Handler, Server, serving

R = "/r/a b'c"
HERE = "git -C '/r/a b'\\''c' "
LOG = "'--format=%H%x01%h%x01%an%x01%ae%x01%aI%x01%s%x00'"

# What the published client 0.22.3 runs, captured.
PUBLISHED: list[tuple[GitCommand, str, int]] = [
    (git.VERSION_COMMAND, "git '--version'", 30000),
    (git.clone("u/x", "x", None, None), "git 'clone' 'u/x' 'x'", 300000),
    (git.clone("u", "p", "b", 1), "git 'clone' '--branch' 'b' '--single-branch' '--depth' '1' 'u' 'p'", 300000),
    (git.clone("u", "p", None, 0), "git 'clone' 'u' 'p'", 300000),
    (git.init("p", None, False), "git 'init' 'p'", 30000),
    (git.init("p", "m", True), "git 'init' '--initial-branch' 'm' '--bare' 'p'", 30000),
    (git.add(R, None, True), HERE + "'add' '-A'", 30000),
    (git.add(R, ["a", "-b"], True), HERE + "'add' '--' 'a' '-b'", 30000),
    (git.add(R, [], False), HERE + "'add' '.'", 30000),
    (git.commit(R, "m's", None, None, False), HERE + "'commit' '-m' 'm'\\''s'", 30000),
    (
        git.commit(R, "m", "N", "E", True),
        HERE + "'-c' 'user.name=N' '-c' 'user.email=E' 'commit' '-m' 'm' '--allow-empty'",
        30000,
    ),
    (git.commit(R, "m", None, "E", False), HERE + "'-c' 'user.email=E' 'commit' '-m' 'm'", 30000),
    (git.status(R), HERE + "'status' '--porcelain=1' '-b'", 30000),
    (git.log(R, None), HERE + f"'log' {LOG}", 30000),
    (git.log(R, 3), HERE + f"'log' {LOG} '--max-count' '3'", 30000),
    (git.list_branches(R), HERE + "'branch' '--format=%(refname:short)\t%(HEAD)'", 30000),
    (git.create_branch(R, "b", True), HERE + "'checkout' '-b' 'b'", 30000),
    (git.create_branch(R, "b", False), HERE + "'branch' 'b'", 30000),
    (git.checkout_branch(R, "b"), HERE + "'checkout' 'b' '--'", 30000),
    (git.delete_branch(R, "b", False), HERE + "'branch' '-d' 'b'", 30000),
    (git.delete_branch(R, "b", True), HERE + "'branch' '-D' 'b'", 30000),
    (git.remote_add(R, "o", "u", False, False), HERE + "'remote' 'add' 'o' 'u'", 30000),
    (git.remote_add(R, "o", "u", True, False), HERE + "'remote' 'add' '-f' 'o' 'u'", 30000),
    (
        git.remote_add(R, "o", "u", False, True),
        HERE + "'remote' 'add' 'o' 'u' || " + HERE + "'remote' 'set-url' 'o' 'u'",
        30000,
    ),
    (
        git.remote_add(R, "o", "u", True, True),
        f"({HERE}'remote' 'add' '-f' 'o' 'u' || {HERE}'remote' 'set-url' 'o' 'u') && {HERE}'fetch' 'o'",
        30000,
    ),
    (git.remote_get(R, "o"), HERE + "'remote' 'get-url' 'o'", 30000),
    (git.reset(R, None, None, None), HERE + "'reset' '--'", 30000),
    (git.reset(R, "hard", "HEAD~1", []), HERE + "'reset' '--hard' 'HEAD~1' '--'", 30000),
    (git.reset(R, "mixed", "t", ["a"]), HERE + "'reset' '--mixed' 't' '--' 'a'", 30000),
    (git.restore(R, ["a"], False, None, None), HERE + "'restore' '--worktree' '--' 'a'", 30000),
    (git.restore(R, ["a"], True, None, None), HERE + "'restore' '--staged' '--' 'a'", 30000),
    (
        git.restore(R, ["a"], True, True, "s"),
        HERE + "'restore' '--worktree' '--staged' '--source' 's' '--' 'a'",
        30000,
    ),
    (git.restore(R, ["a"], False, False, None), HERE + "'restore' '--' 'a'", 30000),
    (git.pull(R, None, None), HERE + "'pull'", 120000),
    (git.pull(R, "o", "b"), HERE + "'pull' 'o' 'b'", 120000),
    (git.set_config(R, "k", "v", "global"), HERE + "'config' '--global' 'k' 'v'", 30000),
    (git.set_config(R, "k", "v", "local"), HERE + "'config' '--local' 'k' 'v'", 30000),
    (git.get_config(R, "k", "global"), HERE + "'config' '--global' '--get' 'k'", 30000),
]


@pytest.mark.parametrize(("job", "line", "timeout_ms"), PUBLISHED, ids=lambda value: getattr(value, "name", ""))
def test_command_is_that_of_the_published_client(job: GitCommand, line: str, timeout_ms: int) -> None:
    """Command lines and time limits equal the published client's, but for `--` after names."""
    assert (job.command, job.timeout_ms) == (line, timeout_ms)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=5))
@example(["'", "$(id)", "`id`", "a\nb", "\\", "!!", "-n", "", '"', "* ~ # ;|&"])
def test_a_shell_gives_back_exactly_the_arguments(arguments: list[str]) -> None:
    """A program behind the shell receives exactly the quoted arguments."""
    line = "printf '%s\\0' " + " ".join(map(quote_argument, arguments))
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == arguments


def test_a_nul_is_refused() -> None:
    """An argument with a NUL is refused before anything is sent."""
    with pytest.raises(InvalidArgumentError, match="NUL"):
        git_command_line(["commit", "-m", "a\0b"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: git.clone("--upload-pack=touch x", "p", None, None),
        lambda: git.clone("u", "-p", None, None),
        lambda: git.checkout_branch(R, "--orphan"),
        lambda: git.create_branch(R, "-f", True),
        lambda: git.delete_branch(R, "-f", False),
        lambda: git.remote_add(R, "o", "--x", False, False),
        lambda: git.fetch(R, "--upload-pack=touch x", None, False, False, None),
        lambda: git.pull(R, "--upload-pack=touch x", None),
        lambda: git.push(R, "--receive-pack=touch x", None),
        lambda: git.reset(R, None, "--hard", None),
        lambda: git.restore(R, ["a"], False, None, "--x"),
        lambda: git.diff(R, "--output=x", None, False, None),
        lambda: git.diff(R, None, "main", False, None),
        lambda: git.diff(R, "a", "b", True, None),
        lambda: git.push(R, "o", None, delete=True),
        lambda: git.reset(R, "harder", None, None),
        lambda: git.get_config(R, "user.name", "everywhere"),
    ],
)
def test_options_in_place_of_names_are_refused(make: Callable[[], GitCommand]) -> None:
    """An option in place of a name is a ValueError before anything is sent."""
    with pytest.raises(ValueError, match=r"must|Must|needs"):
        make()


def test_a_value_may_begin_with_a_dash() -> None:
    """A setting's value that begins with a dash is no option."""
    assert git.set_config(R, "core.pager", "-F", "local").command == HERE + "'config' '--local' '--' 'core.pager' '-F'"
    assert git.checkout_branch(R, "-").command == HERE + "'checkout' '-' '--'"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://h/x/y%20z.git/", "y z"),
        ("git@h:o/r.git", "r"),
        ("h:r", "r"),
        ("/srv/r.git", "r"),
        ("ssh://h/~u/r.git//", "r"),
        ("https://user:pa:ss@h/", "h"),
        ("https://h/r.git?private_token=secret#x", "r"),
    ],
)
def test_clone_goes_to_the_name_in_the_url(url: str, name: str) -> None:
    """Without a path, a clone goes to the last part of the URL."""
    assert clone_target(url) == name


@pytest.mark.parametrize("url", ["https://h/..", "", "/", "https://h/a%2F..%2Fb", "https://h/-x.git"])
def test_a_url_without_a_name_wants_a_path(url: str) -> None:
    """A URL without a name is refused."""
    with pytest.raises(InvalidArgumentError, match="path"):
        clone_target(url)


class Repo:
    """A repository, with commands run as in a session."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def run(self, job: GitCommand) -> GitOutput:
        environ = {**os.environ, **git.GIT_ENVIRONMENT, "HOME": str(self.path), "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(["sh", "-c", job.command], cwd=self.path, env=environ, capture_output=True, check=False)
        return GitOutput(
            "", done.returncode, *(stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
        )

    def git(self, *arguments: str, check: bool = True) -> GitOutput:
        job = GitCommand(arguments[0], git_command_line(arguments, str(self.path)))
        output = self.run(job)
        return check_success(job, output) if check else output

    def write(self, name: str, text: str) -> None:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def new_repo(path: Path, *options: str) -> Repo:
    repo = Repo(path)
    repo.git("init", "--initial-branch", "main", *options)
    repo.git("config", "user.name", "Ünïcode Näme")
    repo.git("config", "user.email", "n@example.com")
    return repo


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = new_repo(tmp_path / "work tree")
    made.write("a.txt", "1\n2\n3\n4\n5\n6\n7\n")
    made.git("add", "-A")
    made.git("commit", "-m", "first")
    return made


NAMES = [
    "plain",
    "with space",
    'quote"s',
    "tab\there",
    "back\\slash",
    "ünïcode 漢",
    "a -> b",
    "new\nline",
    " lead",
    "#x",
]


@pytest.mark.parametrize("quoting", ["true", "false"])
def test_status_of_every_kind(repo: Repo, quoting: str) -> None:
    """Every change has the file's exact name on disk."""
    repo.git("config", "core.quotePath", quoting)
    for name in NAMES:
        repo.write(name, "x")
    found = read_status(repo.run(git.status(str(repo.path))))
    assert {file.path for file in found.files} == set(NAMES)
    assert found.untracked_count == found.total_count == len(NAMES)
    repo.git("add", "-A")
    found = read_status(repo.run(git.status(str(repo.path))))
    assert {(file.path, file.status, file.staged) for file in found.files} == {(name, "added", True) for name in NAMES}
    repo.git("commit", "-m", "names")
    for name in NAMES:
        repo.git("mv", "--", name, f"moved {name}")
    found = read_status(repo.run(git.status(str(repo.path))))
    assert sorted(file.path for file in found.files) == sorted(f"moved {name}" for name in NAMES)
    assert {file.status for file in found.files} == {"renamed"}
    assert sorted(file.renamed_from or "" for file in found.files) == sorted(NAMES)


def test_status_of_branches(repo: Repo, tmp_path: Path) -> None:
    """The branch is reported before its first commit, with its upstream, and when detached."""
    empty = new_repo(tmp_path / "empty")
    assert read_status(empty.run(git.status(str(empty.path)))).current_branch == "main"
    repo.git("checkout", "-b", "detached/#1")
    status = read_status(repo.run(git.status(str(repo.path))))
    assert (status.current_branch, status.detached, status.upstream, status.is_clean) == (
        "detached/#1",
        False,
        None,
        True,
    )
    repo.git("branch", "up")
    repo.git("commit", "--allow-empty", "-m", "ahead")
    repo.git("branch", "--set-upstream-to", "up")
    repo.git("checkout", "up")
    for _ in range(2):
        repo.git("commit", "--allow-empty", "-m", "behind")
    repo.git("checkout", "-")
    status = read_status(repo.run(git.status(str(repo.path))))
    assert (status.current_branch, status.upstream, status.ahead, status.behind) == ("detached/#1", "up", 1, 2)
    repo.git("branch", "-D", "up")
    status = read_status(repo.run(git.status(str(repo.path))))
    assert (status.current_branch, status.upstream, status.ahead) == ("detached/#1", "up", 0)
    repo.git("checkout", "--detach")
    status = read_status(repo.run(git.status(str(repo.path))))
    assert (status.current_branch, status.detached) == (None, True)


def test_branch_without_commits_of_older_git() -> None:
    """Git before 2.18 calls a branch without commits "Initial commit on"."""
    assert read_status(GitOutput("", 0, "## Initial commit on x\n", "")).current_branch == "x"
    status = read_status(GitOutput("", 0, "## No commits yet on x...origin/x [gone]\n", ""))
    assert (status.current_branch, status.upstream) == ("x", "origin/x")


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_a_quoted_path_is_read_back(path: str) -> None:
    """Unquoting restores the path that git quoted."""
    named = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r", 34: '"', 92: "\\"}
    pieces = (
        f"\\{named[byte]}" if byte in named else f"\\{byte:03o}" if byte < 32 or byte > 126 else chr(byte)
        for byte in path.encode()
    )
    assert unquote_path(f'"{"".join(pieces)}"') == path


def test_bytes_that_are_no_text_stay_visible() -> None:
    """A name that is not UTF-8 can still be printed."""
    assert unquote_path('"a\\377b"') == "a\\xffb"


def test_log(repo: Repo) -> None:
    """Commits come newest first, with exact names and subjects."""
    for subject in ("émoji 😀 'q' \"d\"", "x\x01y"):
        repo.git("commit", "--allow-empty", "-m", f"{subject}\n\nbody\nmore")
    found = read_log(repo.run(git.log(str(repo.path), None)).stdout)
    assert [entry.message for entry in found] == ["x\x01y", "émoji 😀 'q' \"d\"", "first"]
    assert found[0].author_name == "Ünïcode Näme"
    assert found[0].hash.startswith(found[0].short_hash)
    assert len(read_log(repo.run(git.log(str(repo.path), 2)).stdout)) == 2


def test_branches(repo: Repo) -> None:
    """All branches are listed, and a detached HEAD is not."""
    for name in ("feature/#1", "(x)", "détaché"):
        repo.git("branch", name)
    found = read_branches(repo.run(git.list_branches(str(repo.path))).stdout)
    assert {branch.name: branch.is_current for branch in found} == {
        "main": True,
        "feature/#1": False,
        "(x)": False,
        "détaché": False,
    }
    repo.git("checkout", "--detach")
    found = read_branches(repo.run(git.list_branches(str(repo.path))).stdout)
    assert len(found) == 4
    assert not any(branch.is_current for branch in found)


@pytest.mark.parametrize("branch", ["main", "feature/#1", "a]b", "--detach"])
def test_hash_of_a_commit(repo: Repo, branch: str) -> None:
    """The hash of a commit is found on any branch, and without one."""
    repo.git("checkout", branch) if branch in ("main", "--detach") else repo.git("checkout", "-b", branch)
    shown = read_commit(repo.run(git.commit(str(repo.path), "[x deadbeef] y", None, None, True)).stdout)
    assert shown == repo.git("rev-parse", "--short", "HEAD").stdout.strip()


def test_hash_of_a_first_commit(tmp_path: Path) -> None:
    """The hash of a first commit is found."""
    repo = new_repo(tmp_path / "new")
    shown = read_commit(repo.run(git.commit(str(repo.path), "x", None, None, True)).stdout)
    assert shown == repo.git("rev-parse", "--short", "HEAD").stdout.strip()


def test_diff_of_every_kind(repo: Repo) -> None:
    """Counts, renames and binary files are read, and git applies the patch."""
    repo.write("ü old.txt", "a\nb\nc\nd\ne\nf\n")
    repo.write("gone", "x\n")
    (repo.path / "bin").write_bytes(b"\0\1")
    repo.git("add", "-A")
    repo.git("commit", "-m", "second")
    repo.git("config", "diff.noprefix", "true")
    repo.git("config", "color.ui", "always")
    repo.git("mv", "ü old.txt", "new name.txt")
    repo.write("new name.txt", "a\nb\nc\nd\ne\nf\ng\n")
    (repo.path / "bin").write_bytes(b"\0\2")
    (repo.path / "gone").unlink()
    repo.write('tab\tq"uote', "z\n")
    (repo.path / "a.txt").chmod(0o755)
    repo.git("add", "-A")
    files, patch = read_git_diff(repo.run(git.diff(str(repo.path), None, None, True, None)).stdout)
    found = {file.path: (file.status, file.additions, file.deletions, file.renamed_from) for file in files}
    assert found == {
        "a.txt": ("modified", 0, 0, None),
        "bin": ("modified", None, None, None),
        "gone": ("deleted", 0, 1, None),
        "new name.txt": ("renamed", 1, 0, "ü old.txt"),
        'tab\tq"uote': ("added", 1, 0, None),
    }
    assert [file.path for file in files if file.is_binary] == ["bin"]
    assert patch.startswith("diff --git a/a.txt b/a.txt\n")
    nothing = repo.run(git.diff(str(repo.path), None, None, False, None))
    assert (nothing.exit_code, read_git_diff(nothing.stdout)) == (0, ([], ""))
    repo.git("commit", "-m", "third")
    between = repo.run(git.diff(str(repo.path), "HEAD~1", "HEAD", False, ["gone"]))
    assert [file.path for file in read_git_diff(between.stdout)[0]] == ["gone"]
    (repo.path / "p").write_text(read_git_diff(between.stdout)[1])
    repo.git("apply", "--check", "--reverse", "p")


def conflicting(repo: Repo) -> None:
    repo.git("checkout", "-b", "other")
    repo.write("a.txt", "theirs\n")
    repo.write("both", "theirs\n")
    repo.git("add", "-A")
    repo.git("commit", "-m", "theirs")
    repo.git("checkout", "main")
    repo.write("a.txt", "ours\n")
    repo.write("both", "ours\n")
    repo.git("add", "-A")
    repo.git("commit", "-m", "ours")


def test_conflicts_are_reported(repo: Repo) -> None:
    """A conflict of pull, commit, checkout, status or diff is reported as one."""
    conflicting(repo)
    repo.git("config", "pull.rebase", "false")
    pull = git.pull(str(repo.path), ".", "other")
    output = repo.run(pull)
    assert "CONFLICT" not in output.stderr
    with pytest.raises(GitConflictError, match=r"CONFLICT \(content\): Merge conflict in a\.txt") as caught:
        check_success(pull, output)
    assert "both" in caught.value.stdout
    assert caught.value.exit_code == 1
    for job in (git.commit(str(repo.path), "x", None, None, False), git.checkout_branch(str(repo.path), "other"), pull):
        with pytest.raises(GitConflictError):
            check_success(job, repo.run(job))
    status = read_status(repo.run(git.status(str(repo.path))))
    assert {file.path: file.status for file in status.files} == {"a.txt": "conflict", "both": "conflict"}
    assert status.conflict_count == 2
    files, patch = read_git_diff(repo.run(git.diff(str(repo.path), None, None, False, None)).stdout)
    assert {file.path: file.status for file in files} == {"a.txt": "conflict", "both": "conflict"}
    assert "diff --cc a.txt" in patch


def test_rebase_conflicts_are_reported(repo: Repo) -> None:
    """The conflict of a rebasing pull is reported as one."""
    conflicting(repo)
    repo.git("config", "pull.rebase", "true")
    pull = git.pull(str(repo.path), ".", "other")
    with pytest.raises(GitConflictError):
        check_success(pull, repo.run(pull))
    assert read_branches(repo.run(git.list_branches(str(repo.path))).stdout)[0].name == "main"


def test_push_and_fetch_report_changes(repo: Repo, tmp_path: Path) -> None:
    """Push and fetch report every changed branch and tag."""
    there, work = new_repo(tmp_path / "there.git", "--bare"), str(repo.path)
    repo.git("remote", "add", "origin", str(there.path))
    repo.git("checkout", "-b", "feat#1")

    def push(**options: bool) -> list[GitRefUpdate]:
        job = git.push(work, None, None, set_upstream=True, **options)
        return read_push(check_success(job, repo.run(job)).stdout)[1]

    assert push() == [GitRefUpdate("new", "HEAD", "refs/heads/feat#1", "[new branch]")]
    assert [update.status for update in push()] == ["up to date"]
    repo.git("commit", "--allow-empty", "-m", "x")
    repo.git("tag", "v1")
    assert [update.status for update in push(tags=True)] == ["updated", "new"]
    other = Repo(tmp_path / "other")
    other.git("clone", str(there.path), str(other.path))
    repo.git("commit", "--allow-empty", "--amend", "-m", "y")
    with pytest.raises(GitRejectedError, match=r"refs/heads/feat#1 \[rejected\] \(non-fast-forward\)"):
        push()
    assert [(update.status, update.reason) for update in push(force_with_lease=True)] == [("forced", "forced update")]

    def fetch(**options: bool) -> set[tuple[str, str, str]]:
        job = git.fetch(str(other.path), None, None, options.get("prune", False), True, None)
        updates = read_fetch(check_success(job, other.run(job)).stderr)
        return {(update.status, update.source, update.destination) for update in updates}

    repo.git("tag", "v2")
    repo.git("push", "origin", "HEAD:a-very-long-name-for-a-branch-so-that-columns-move", "v2")
    assert fetch() == {
        ("forced", "feat#1", "origin/feat#1"),
        (
            "new",
            "a-very-long-name-for-a-branch-so-that-columns-move",
            "origin/a-very-long-name-for-a-branch-so-that-columns-move",
        ),
        ("new", "v2", "v2"),
    }
    assert fetch() == set()
    gone = git.push(work, None, "a-very-long-name-for-a-branch-so-that-columns-move", delete=True)
    assert read_push(check_success(gone, repo.run(gone)).stdout)[1][0].status == "deleted"
    assert fetch(prune=True) == {("deleted", "", "origin/a-very-long-name-for-a-branch-so-that-columns-move")}


FAILURES: list[tuple[type[GitError], int, str]] = [
    (GitAuthError, 128, "fatal: Authentication failed for 'https://h/r.git/'"),
    (GitAuthError, 128, "fatal: could not read Username for 'https://h': terminal prompts disabled"),
    (GitAuthError, 128, "git@h: Permission denied (publickey).\nfatal: Could not read from remote repository."),
    (GitAuthError, 128, "remote: Permission to o/r.git denied to u.\nfatal: unable to access 'https://h/r/'"),
    (GitAuthError, 128, "fatal: unable to access 'https://h/r/': The requested URL returned error: 403"),
    (GitAuthError, 128, "remote: HTTP Basic: Access denied"),
    (GitNotARepoError, 128, "fatal: not a git repository (or any of the parent directories): .git"),
    (GitNotARepoError, 128, "fatal: 'x' does not appear to be a git repository"),
    (GitConflictError, 1, "error: Pulling is not possible because you have unmerged files."),
    (GitConflictError, 1, "error: could not apply 12eee77... y"),
    (GitNotFoundError, 127, "sh: 1: git: not found"),
    (GitNotFoundError, 127, "bash: git: command not found"),
    (GitNotFoundError, 127, ""),
    (GitError, 1, "pre-commit: line 3: npx: command not found"),
    (GitError, 128, "fatal: could not create work tree dir '/x/403': Permission denied"),
    (GitError, 128, "error: pathspec 'conflict.txt' did not match any file(s) known to git"),
]


@pytest.mark.parametrize(("kind", "code", "stderr"), FAILURES)
def test_failures_have_classes(kind: type[GitError], code: int, stderr: str) -> None:
    """An error's class follows from git's message, not from words in a path."""
    with pytest.raises(GitError) as caught:
        check_success(GitCommand("pull", "git 'pull'"), GitOutput("R-1", code, "", stderr))
    error = caught.value
    assert (type(error), error.exit_code, error.stderr, error.request_id) == (kind, code, stderr, "R-1")
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)


def test_a_failure_in_one_text_is_read() -> None:
    """A failed command in one text has its exit code and message read."""
    text = "Execution failed. Error code:127 Error message: sh: 1: git: not found"
    result = CommandResult(error_message=text, exit_code=1, stdout=text, output=text, exception=CommandError(text))
    output = read_output(git.VERSION_COMMAND, result)
    assert (output.exit_code, output.stdout, output.stderr) == (127, "", "sh: 1: git: not found")


def test_out_of_time_is_a_git_error_and_a_timeout() -> None:
    """A killed clone is a GitTimeoutError with its output, without credentials."""
    job = git.clone("https://user:hunter22@h/r", "r", None, None)
    reason = CommandTimeoutError("timed out after 5 ms", stderr="fetching https://user:hunter22@h/r", request_id="R-1")
    with pytest.raises(GitTimeoutError) as caught:
        read_output(job, CommandResult(exit_code=-1, exception=reason))
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.stderr == "fetching https://***@h/r"
    assert caught.value.exit_code == -1


def test_what_is_not_git_is_passed_on() -> None:
    """A lost connection stays a ConnectionLost."""
    lost = ConnectionLost("gone")
    with pytest.raises(ConnectionLost) as caught:
        read_output(git.VERSION_COMMAND, CommandResult(exception=lost))
    assert caught.value is lost


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("user", ["", "user:hunter22@"])
def test_refused_credentials_of_a_real_server(tmp_path: Path, status: int, user: str) -> None:
    """A real server's refusal is a GitAuthError without the credentials."""

    class Refusing(Handler):
        def do_GET(self) -> None:
            self.answer(status, headers={"WWW-Authenticate": 'Basic realm="x"'})

    with serving(Server(Refusing)) as server:
        job = git.clone(f"http://{user}{server.host}/r.git", "r", None, None)
        output = Repo(tmp_path / "here").run(job)
    with pytest.raises(GitAuthError) as caught:
        check_success(job, output)
    assert caught.value.exit_code == 128
    assert "hunter22" not in f"{caught.value} {vars(caught.value)}"


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("https://user:hunter22@h/r.git", "hunter22"),
        ("https://hunter22@h/r.git", "hunter22"),
        ("https://x-access-token:hunter22@h:8443/r", "hunter22"),
        ("https://user:p@ss:hunter22@h/r", "p@ss:hunter22"),
        ("https://user:it's22@h/r", "it's22"),
        ("https://user:pa/hunter22@h/r", "pa/hunter22"),
        ("https://user:hunter%2F22@h/r", "hunter/22"),
        ("https://h/r.git?private_token=hunter22", "hunter22"),
        ("ssh://user:hunter22@h:22/r", "hunter22"),
    ],
)
@pytest.mark.parametrize("text", ["fatal: unable to access '{}/': no", "To {}", "{}", "remote: {} is gone."])
def test_credentials_are_nowhere(url: str, password: str, text: str) -> None:
    """No error shows a password, however git or the remote quotes it."""
    job = git.clone(url, "r", None, None)
    shown = text.format(url)
    with pytest.raises(GitError) as caught:
        check_success(job, GitOutput("", 128, shown, f"{shown}\nremote: {password} is no password\nfatal: {shown}"))
    error = caught.value
    shown = f"{error} {error!r} {vars(error)} {pickle.dumps(error)!r}"
    assert url not in shown
    assert password not in shown
    assert "user" not in shown
    assert "hunter" not in shown


def test_pushed_url_has_no_credentials() -> None:
    """The result of a push shows no credentials."""
    assert read_push("To https://user:hunter22@h/r\nDone\n") == ("https://***@h/r", [])


def test_texts_without_secrets_stay_as_they_are() -> None:
    """Redaction changes nothing but secrets."""
    for text in ("https://host:8443/a/b.git", "git@host:o/r.git", "see http://h/a@v1 or mail a@b", "a:b@c"):
        assert redact(text) == text
    assert redact("Authorization: Basic abc== x") == "Authorization: Basic *** x"
