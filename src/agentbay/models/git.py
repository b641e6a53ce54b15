"""Results of git commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._lazy_attrs import define, field
from ..errors import AgentBayError
from .base import BaseResult, IterableResult, list_or_empty


@define(slots=False)
class GitResult(BaseResult):
    """Base class of git results.

    Failures raise, so a result is a success.

    The fields of every result are keyword only here, after those of the command.
    """

    request_id: str = field(default="", kw_only=True)
    success: bool = field(default=True, kw_only=True)
    error_message: str = field(default="", kw_only=True)
    exception: AgentBayError | None = field(default=None, kw_only=True, eq=False, repr=False)


@define(slots=False)
class GitCloneResult(GitResult):
    """A cloned repository.

    `path` is its directory, relative to the session's home.
    """

    path: str


@define(slots=False)
class GitInitResult(GitResult):
    """A new repository.

    `path` is its directory, relative to the session's home.
    """

    path: str


@define(slots=False)
class GitCommitResult(GitResult):
    """A new commit.

    `commit_hash` is its abbreviated hash, None if unknown.
    """

    commit_hash: str | None = None


@define(slots=False)
class GitFileStatus:
    """A file that is changed or untracked.

    Attributes:
        path: The file, relative to the top of the work tree.
        status: "conflict", "renamed", "copied", "deleted", "added", "modified", "typechange", "untracked" or "unknown".
        index_status, work_tree_status: Status letters of git; " " is unchanged.
        staged: Whether the index differs from the commit.
        renamed_from: Its previous path, if it was renamed or copied.
    """

    path: str
    status: str
    index_status: str
    work_tree_status: str
    staged: bool
    renamed_from: str | None = None


@define(slots=False)
class GitStatusResult(GitResult):
    """The state of a work tree.

    Attributes:
        current_branch: The checked out branch, also if it has no commit yet; None if `detached`.
        upstream: The branch it tracks, such as "origin/main"; None if there is none.
        ahead, behind: Number of commits that only the branch has, and only its upstream.
        detached: Whether a commit is checked out instead of a branch.
        files: Changed and untracked files, in the order of git.
    """

    current_branch: str | None = None
    upstream: str | None = None
    ahead: int = 0
    behind: int = 0
    detached: bool = False
    files: list[GitFileStatus] = field(default=None, converter=list_or_empty)

    @property
    def is_clean(self) -> bool:
        """Whether nothing changed and nothing is untracked."""
        return not self.files

    @property
    def has_changes(self) -> bool:
        """Whether anything changed or is untracked."""
        return bool(self.files)

    @property
    def has_staged(self) -> bool:
        """Whether anything is staged."""
        return self.staged_count > 0

    @property
    def has_untracked(self) -> bool:
        """Whether there are untracked files."""
        return self.untracked_count > 0

    @property
    def has_conflicts(self) -> bool:
        """Whether a merge left conflicts."""
        return self.conflict_count > 0

    @property
    def total_count(self) -> int:
        """Number of changed and untracked files."""
        return len(self.files)

    @property
    def staged_count(self) -> int:
        """Number of files that are staged, wholly or in part."""
        return self._count(lambda file: file.staged)

    @property
    def unstaged_count(self) -> int:
        """Number of changed files of which nothing is staged."""
        return self._count(lambda file: not file.staged and file.status != "untracked")

    @property
    def untracked_count(self) -> int:
        """Number of untracked files."""
        return self._count(lambda file: file.status == "untracked")

    @property
    def conflict_count(self) -> int:
        """Number of files with conflicts."""
        return self._count(lambda file: file.status == "conflict")

    def _count(self, condition: Callable[[GitFileStatus], bool]) -> int:
        return sum(map(condition, self.files))


@define(slots=False)
class GitLogEntry:
    """A commit.

    Attributes:
        hash, short_hash: Its full and abbreviated hash.
        author_name, author_email: Its author.
        date: Author date, ISO 8601 with offset.
        message: First line of its message.
    """

    hash: str
    short_hash: str
    author_name: str
    author_email: str
    date: str
    message: str


@define(slots=False)
class GitLogResult(GitResult, IterableResult[GitLogEntry]):
    """Commits, newest first."""

    _LIST_FIELD = "entries"

    entries: list[GitLogEntry] = field(default=None, converter=list_or_empty)


@define(slots=False)
class GitBranchInfo:
    """A local branch."""

    name: str
    is_current: bool


@define(slots=False)
class GitBranchListResult(GitResult, IterableResult[GitBranchInfo]):
    """The local branches, sorted by name.

    `current` is checked out, or "".
    """

    _LIST_FIELD = "branches"

    branches: list[GitBranchInfo] = field(default=None, converter=list_or_empty)
    current: str = ""


@define(slots=False)
class GitRefUpdate:
    """Outcome of fetching or pushing one branch or tag.

    Attributes:
        status: "new", "updated", "forced", "deleted", "rejected" or "up to date"; "tag" for a tag that was moved.
        source: Where it was taken from; "" for a deletion.
        destination: What was updated: a full name after a push (`refs/heads/main`), a short one after a fetch
            (`origin/main`).
        summary: Summary of git, such as `8d81c82..7dfcf24`.
        reason: Why it was rejected or forced, or "".
    """

    status: str
    source: str
    destination: str
    summary: str = ""
    reason: str = ""


@define(slots=False)
class GitFetchResult(GitResult):
    """What a fetch updated.

    `updates` leaves out what was up to date.
    """

    updates: list[GitRefUpdate] = field(default=None, converter=list_or_empty)


@define(slots=False)
class GitPushResult(GitResult):
    """What a push updated, in the order of git.

    `remote` is the URL without credentials.
    """

    remote: str = ""
    updates: list[GitRefUpdate] = field(default=None, converter=list_or_empty)


@define(slots=False)
class GitDiffFile:
    """A file that differs between two states.

    Attributes:
        path: Its current path, relative to the top of the work tree.
        status: "added", "copied", "deleted", "modified", "renamed", "typechange", "conflict" or "unknown".
        additions, deletions: Number of lines; None for a binary file or if unknown.
        renamed_from: Its previous path, if it was renamed or copied.
        is_binary: Whether git considers it binary.
    """

    path: str
    status: str
    additions: int | None = None
    deletions: int | None = None
    renamed_from: str | None = None
    is_binary: bool = False


def _repr_lines(text: Any) -> str:
    return f"<{len(str(text).splitlines())} lines>"


@define(slots=False)
class GitDiffResult(GitResult):
    """The difference between two states.

    Attributes:
        files: Files that differ, in the order of git.
        patch: The same as a unified diff; "" if nothing differs.
    """

    files: list[GitDiffFile] = field(default=None, converter=list_or_empty)
    patch: str = field(default="", repr=_repr_lines)

    @property
    def additions(self) -> int:
        """Number of added lines in all files."""
        return sum(file.additions or 0 for file in self.files)

    @property
    def deletions(self) -> int:
        """Number of deleted lines in all files."""
        return sum(file.deletions or 0 for file in self.files)
