"""Git in a session."""

from __future__ import annotations

import time
from collections.abc import Sequence

from .._arguments import NOT_NEGATIVE, POSITIVE_AND_FINITE, checked_arguments
from .._transport import git as commands
from .._transport.git_output import (
    check_success,
    read_branches,
    read_commit,
    read_git_diff,
    read_log,
    read_status,
)
from ..models.git import (
    GitBranchListResult,
    GitCloneResult,
    GitCommitResult,
    GitDiffResult,
    GitInitResult,
    GitLogResult,
    GitStatusResult,
)
from .git_remotes import AsyncGitRemotes, time_left


@checked_arguments(timeout_ms=NOT_NEGATIVE, timeout=POSITIVE_AND_FINITE)
class AsyncGit(AsyncGitRemotes):
    """Run git in a session.

    It uses the credentials and settings that git has there, and never asks for any.

    Relative paths of repositories start at the session's home directory, paths of files at `repo_path`. `timeout_ms` is
    milliseconds until a command is killed; None or 0 is 30,000, for `clone` 300,000, for `pull`, `fetch` and `push`
    120,000. `timeout` is the same in seconds, and takes precedence.

    Every method raises where it fails: `GitNotFoundError` without git in the session, `GitNotARepoError` outside of a
    repository, `GitTimeoutError` after `timeout_ms`, `GitError` for what git itself refuses, another `AgentBayError`
    if the command could not be run. User names, passwords and tokens of URLs are in none of them.
    """

    async def clone(
        self,
        url: str,
        *,
        path: str | None = None,
        branch: str | None = None,
        depth: int | None = None,
        timeout_ms: int | None = None,
        timeout: float | None = None,
    ) -> GitCloneResult:
        """Clone a repository.

        Args:
            url: URL of the repository.
            path: Directory to create; None is the last part of the URL without `.git`.
            branch: Fetch this branch alone, and check it out; None fetches all and checks out the remote's own.
            depth: How many commits of history to fetch; None is all.

        Raises:
            GitAuthError: If the remote does not accept the credentials.

        Wire: CallMcpTool/shell
        """
        target = path or commands.clone_target(url)
        output = await self._run_checked(commands.clone(url, target, branch, depth), timeout_ms, timeout)
        return GitCloneResult(target, request_id=output.request_id)

    async def init(
        self,
        path: str,
        *,
        initial_branch: str | None = None,
        bare: bool = False,
        timeout_ms: int | None = None,
        timeout: float | None = None,
    ) -> GitInitResult:
        """Create a repository, unless there is one already.

        Args:
            path: Its directory, created if it does not exist.
            initial_branch: Name of the first branch; None is git's own default.
            bare: Without a work tree.

        Wire: CallMcpTool/shell
        """
        output = await self._run_checked(commands.init(path, initial_branch, bare), timeout_ms, timeout)
        return GitInitResult(path, request_id=output.request_id)

    async def add(
        self,
        repo_path: str,
        *,
        files: Sequence[str] | None = None,
        stage_all: bool = True,
        timeout_ms: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Stage changes.

        Args:
            repo_path: The repository.
            files: Files or directories; None or empty is everything.
            stage_all: Without `files`: the whole work tree, not only what is below `repo_path`.

        Wire: CallMcpTool/shell
        """
        await self._run_checked(commands.add(repo_path, files, stage_all), timeout_ms, timeout)

    async def commit(
        self,
        repo_path: str,
        message: str,
        *,
        author_name: str | None = None,
        author_email: str | None = None,
        allow_empty: bool = False,
        timeout_ms: int | None = None,
        timeout: float | None = None,
    ) -> GitCommitResult:
        """Commit the staged changes.

        Args:
            repo_path: The repository.
            message: The commit message.
            author_name, author_email: Author of the commit; None is what `configure_user` set.
            allow_empty: Commit even if nothing is staged.

        Raises:
            GitConflictError: If a merge left conflicts.

        Wire: CallMcpTool/shell
        """
        job = commands.commit(repo_path, message, author_name, author_email, allow_empty)
        output = await self._run_checked(job, timeout_ms, timeout)
        return GitCommitResult(read_commit(output.stdout), request_id=output.request_id)

    async def status(
        self, repo_path: str, *, timeout_ms: int | None = None, timeout: float | None = None
    ) -> GitStatusResult:
        """Return the branch and the changes since its last commit.

        Wire: CallMcpTool/shell
        """
        return read_status(await self._run_checked(commands.status(repo_path), timeout_ms, timeout))

    async def log(
        self,
        repo_path: str,
        *,
        max_count: int | None = None,
        timeout_ms: int | None = None,
        timeout: float | None = None,
    ) -> GitLogResult:
        """List commits of the current branch, newest first.

        Args:
            repo_path: The repository; it must have a commit.
            max_count: How many; None or 0 is all.

        Wire: CallMcpTool/shell
        """
        output = await self._run_checked(commands.log(repo_path, max_count), timeout_ms, timeout)
        return GitLogResult(read_log(output.stdout), request_id=output.request_id)

    async def diff(
        self,
        repo_path: str,
        *,
        base: str | None = None,
        target: str | None = None,
        staged: bool = False,
        paths: Sequence[str] | None = None,
        timeout_ms: int | None = None,
        timeout: float | None = None,
    ) -> GitDiffResult:
        """Return how two states differ, without untracked files.

        Args:
            repo_path: The repository.
            base: Commit or branch to compare with; None is the index, or with `staged` the last commit.
            target: Commit or branch to compare; None is the work tree.
            staged: Compare the index instead of the work tree.
            paths: Files or directories to look at; None is all.

        Raises:
            ValueError: If `target` is given without `base` or with `staged`.

        Wire: CallMcpTool/shell
        """
        output = await self._run_checked(commands.diff(repo_path, base, target, staged, paths), timeout_ms, timeout)
        files, patch = read_git_diff(output.stdout)
        return GitDiffResult(files, patch, request_id=output.request_id)

    async def list_branches(
        self, repo_path: str, *, timeout_ms: int | None = None, timeout: float | None = None
    ) -> GitBranchListResult:
        """List the local branches by name.

        Wire: CallMcpTool/shell
        """
        output = await self._run_checked(commands.list_branches(repo_path), timeout_ms, timeout)
        branches = read_branches(output.stdout)
        current = next((branch.name for branch in branches if branch.is_current), "")
        return GitBranchListResult(branches, current, request_id=output.request_id)

    async def create_branch(
        self,
        repo_path: str,
        branch: str,
        *,
        checkout: bool = True,
        timeout_ms: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Create a branch at the current commit.

        It is checked out unless `checkout` is False.

        Wire: CallMcpTool/shell
        """
        await self._run_checked(commands.create_branch(repo_path, branch, checkout), timeout_ms, timeout)

    async def checkout_branch(
        self, repo_path: str, branch: str, *, timeout_ms: int | None = None, timeout: float | None = None
    ) -> None:
        """Check out a branch, a tag or a commit.

        "-" is the branch that was checked out before.

        Wire: CallMcpTool/shell
        """
        await self._run_checked(commands.checkout_branch(repo_path, branch), timeout_ms, timeout)

    async def delete_branch(
        self,
        repo_path: str,
        branch: str,
        *,
        force: bool = False,
        timeout_ms: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Delete a local branch.

        A branch with commits that no other branch has is deleted only with `force`.

        Wire: CallMcpTool/shell
        """
        await self._run_checked(commands.delete_branch(repo_path, branch, force), timeout_ms, timeout)

    async def reset(
        self,
        repo_path: str,
        *,
        mode: str | None = None,
        target: str | None = None,
        paths: Sequence[str] | None = None,
        timeout_ms: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Move the current branch, or unstage the files in `paths`.

        Args:
            repo_path: The repository.
            mode: "soft", "mixed", "hard", "merge" or "keep"; None is "mixed". "hard" discards changes.
            target: Where to; None is the last commit.
            paths: Files or directories to take back.

        Raises:
            ValueError: If `mode` is none of these.

        Wire: CallMcpTool/shell
        """
        await self._run_checked(commands.reset(repo_path, mode, target, paths), timeout_ms, timeout)

    async def restore(
        self,
        repo_path: str,
        paths: Sequence[str],
        *,
        staged: bool = False,
        worktree: bool | None = None,
        source: str | None = None,
        timeout_ms: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Discard changes of files.

        Args:
            repo_path: The repository.
            paths: Files or directories.
            staged: In the index.
            worktree: In the work tree; None means unless `staged`.
            source: Commit or branch to take them from; None is the index, or with `staged` the last commit.

        Wire: CallMcpTool/shell
        """
        await self._run_checked(commands.restore(repo_path, paths, staged, worktree, source), timeout_ms, timeout)

    async def configure_user(
        self,
        repo_path: str,
        name: str,
        email: str,
        *,
        scope: str = "global",
        timeout_ms: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Set the name and the email address of commits.

        Args:
            repo_path: The repository, or any directory if `scope` is "global".
            name, email: Author of future commits.
            scope: "global" for all repositories of the session, "local" for this one.
            timeout_ms: Milliseconds for each of two commands.
            timeout: Seconds for both.

        Wire: CallMcpTool/shell, twice
        """
        began = time.monotonic()
        await self.set_config(repo_path, "user.name", name, scope=scope, timeout_ms=timeout_ms, timeout=timeout)
        left = time_left(timeout, began)
        await self.set_config(repo_path, "user.email", email, scope=scope, timeout_ms=timeout_ms, timeout=left)

    async def set_config(
        self,
        repo_path: str,
        key: str,
        value: str,
        *,
        scope: str = "global",
        timeout_ms: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Change a setting of git.

        Args:
            repo_path: The repository, or any directory if `scope` is "global".
            key: Such as "pull.rebase".
            value: What to set it to.
            scope: "global" for all repositories of the session, "local" for this one.

        Raises:
            ValueError: If `scope` is neither.

        Wire: CallMcpTool/shell
        """
        await self._run_checked(commands.set_config(repo_path, key, value, scope), timeout_ms, timeout)

    async def get_config(
        self,
        repo_path: str,
        key: str,
        *,
        scope: str = "global",
        timeout_ms: int | None = None,
        timeout: float | None = None,
    ) -> str | None:
        """Return a setting of git, or None if it is not set.

        Args:
            repo_path: The repository, or any directory if `scope` is "global".
            key: Such as "pull.rebase".
            scope: "global" or "local": where to look, and nowhere else.

        Raises:
            ValueError: If `scope` is neither.

        Wire: CallMcpTool/shell
        """
        job = commands.get_config(repo_path, key, scope)
        output = await self._run_unchecked(job, timeout_ms, timeout)
        # `git config` exits with 1 and no message if the key is not set. For a key that is not valid it exits with 1
        # too, but says so.
        if output.exit_code == 1 and not output.stderr.strip():
            return None
        return check_success(job, output).stdout.strip() or None
