"""Remotes of repositories in a session, and how git is run there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .._arguments import NOT_NEGATIVE, POSITIVE_AND_FINITE, checked_arguments
from .._transport import git as commands
from .._transport.command import command_limit_ms
from .._transport.git import GitCommand
from .._transport.git_output import GitOutput, check_success, git_not_found, read_fetch, read_output, read_push
from ..models.git import GitFetchResult, GitPushResult
from .service import AsyncBaseService

if TYPE_CHECKING:
    from .session import AsyncSession

_MIN_LIMIT_SECONDS = 0.001  # of a command whose time is over before it starts: it must still fail as one


@checked_arguments(timeout_ms=NOT_NEGATIVE, timeout=POSITIVE_AND_FINITE)
class AsyncGitRemotes(AsyncBaseService):
    """The remotes of a repository."""

    def __init__(self, session: AsyncSession) -> None:
        super().__init__(session)
        self._is_git_available = False

    async def remote_add(
        self,
        repo_path: str,
        name: str,
        url: str,
        *,
        fetch: bool = False,
        overwrite: bool = False,
        timeout_ms: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Add a remote repository.

        Args:
            repo_path: The repository.
            name: What to call the remote, such as "origin".
            url: URL of the remote.
            fetch: Fetch from it at once.
            overwrite: Change the URL if there is a remote of that name.

        Wire: CallMcpTool/shell
        """
        await self._run_checked(commands.remote_add(repo_path, name, url, fetch, overwrite), timeout_ms, timeout)

    async def remote_get(
        self, repo_path: str, name: str, *, timeout_ms: int | None = None, timeout: float | None = None
    ) -> str | None:
        """Return the URL of a remote, or None if it does not exist.

        The URL is the one that was given, credentials included.

        Wire: CallMcpTool/shell
        """
        job = commands.remote_get(repo_path, name)
        output = await self._run_unchecked(job, timeout_ms, timeout)
        if output.exit_code and "no such remote" in output.stderr.lower():
            return None
        return check_success(job, output).stdout.strip() or None

    async def fetch(
        self,
        repo_path: str,
        *,
        remote: str | None = None,
        branch: str | None = None,
        prune: bool = False,
        tags: bool = False,
        depth: int | None = None,
        timeout_ms: int | None = None,
        timeout: float | None = None,
    ) -> GitFetchResult:
        """Fetch commits from a remote without merging them.

        Args:
            repo_path: The repository.
            remote: Name or URL; None is the remote of the current branch, or if `branch` is given "origin".
            branch: The branch to fetch; None is all that the remote is set to.
            prune: Forget branches that the remote no longer has.
            tags: Fetch all tags, not only those of what is fetched.
            depth: How many commits of history to fetch; None is all.

        Raises:
            GitAuthError: If the remote does not accept the credentials.

        Wire: CallMcpTool/shell
        """
        output = await self._run_checked(
            commands.fetch(repo_path, remote, branch, prune, tags, depth), timeout_ms, timeout
        )
        return GitFetchResult(read_fetch(output.stderr), request_id=output.request_id)

    async def pull(
        self,
        repo_path: str,
        *,
        remote: str | None = None,
        branch: str | None = None,
        timeout_ms: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Fetch from a remote and merge into the current branch.

        Args:
            repo_path: The repository.
            remote: Name or URL; None is that of the current branch.
            branch: The branch to merge; needs `remote`, or git takes it for one.

        Raises:
            GitAuthError: If the remote does not accept the credentials.
            GitConflictError: If the merge stopped at conflicts; they are in the work tree.

        Wire: CallMcpTool/shell
        """
        await self._run_checked(commands.pull(repo_path, remote, branch), timeout_ms, timeout)

    async def push(
        self,
        repo_path: str,
        *,
        remote: str | None = None,
        branch: str | None = None,
        set_upstream: bool = False,
        force: bool = False,
        force_with_lease: bool = False,
        tags: bool = False,
        delete: bool = False,
        timeout_ms: int | None = None,
        timeout: float | None = None,
    ) -> GitPushResult:
        """Push commits to a remote.

        Args:
            repo_path: The repository.
            remote: Name or URL; None is "origin", or if none of `branch`, `set_upstream` and `tags` is given the remote
                of the current branch.
            branch: The branch, or `local:remote`; None is the current one.
            set_upstream: Make the remote's branch the one that the local one follows.
            force: Replace what is there, whatever it is.
            force_with_lease: Replace what is there unless somebody pushed since the last fetch.
            tags: Push all tags as well.
            delete: Delete `branch` at the remote.

        Raises:
            GitRejectedError: If the remote does not take it, as when it has commits that are not here.
            GitAuthError: If the remote does not accept the credentials.
            ValueError: If `delete` is given without `branch`.

        Wire: CallMcpTool/shell
        """
        job = commands.push(
            repo_path,
            remote,
            branch,
            set_upstream=set_upstream,
            force=force,
            force_with_lease=force_with_lease,
            tags=tags,
            delete=delete,
        )
        output = await self._run_checked(job, timeout_ms, timeout)
        there, updates = read_push(output.stdout)
        return GitPushResult(there, updates, request_id=output.request_id)

    async def _run_checked(self, job: GitCommand, timeout_ms: int | None, timeout: float | None) -> GitOutput:
        return check_success(job, await self._run_unchecked(job, timeout_ms, timeout))

    async def _run_unchecked(self, job: GitCommand, timeout_ms: int | None, timeout: float | None) -> GitOutput:
        if not self._is_git_available:
            began = time.monotonic()
            version = await self._execute(commands.VERSION_COMMAND, None, timeout)
            timeout = time_left(timeout, began)
            if version.exit_code:
                raise git_not_found(version)
            self._is_git_available = True
        return await self._execute(job, timeout_ms, timeout)

    async def _execute(self, job: GitCommand, timeout_ms: int | None, timeout: float | None) -> GitOutput:
        limit = command_limit_ms(timeout_ms or job.timeout_ms, timeout)
        result = await self.session.command._execute(job.command, limit, None, dict(commands.GIT_ENVIRONMENT))
        return read_output(job, result)


def time_left(timeout: float | None, began: float) -> float | None:
    """Return what is left of a time limit for the second of two commands.

    Args:
        timeout: Seconds for both, or None.
        began: When the first one began, on the monotonic clock.
    """
    return None if timeout is None else max(timeout - (time.monotonic() - began), _MIN_LIMIT_SECONDS)
