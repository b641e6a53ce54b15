"""Git: what its commands tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field

from ..errors import AgentBayError
from .base import BaseResult, list_or_empty


@define(slots=False)
class GitResult(BaseResult):
    """What a git command told. Git raises where it fails, so a result is a success.

    What every result has is keyword only here, after what the command tells.
    """

    request_id: str = field(default="", kw_only=True)
    success: bool = field(default=True, kw_only=True)
    error_message: str = field(default="", kw_only=True)
    exception: AgentBayError | None = field(default=None, kw_only=True, eq=False, repr=False)


@define(slots=False)
class GitCloneResult(GitResult):
    """A cloned repository; `path` is its directory, a relative one starts at the session's home directory."""

    path: str


@define(slots=False)
class GitInitResult(GitResult):
    """A new repository; `path` is its directory, a relative one starts at the session's home directory."""

    path: str


@define(slots=False)
class GitCommitResult(GitResult):
    """A new commit; `commit_hash` is its abbreviated hash, or None if git did not tell."""

    commit_hash: str | None = None


@define(slots=False)
class GitFileStatus:
    """A file that differs between commit, index and work tree, or is not tracked.

    Attributes:
        path: The file, from the top of the work tree.
        status: "conflict", "renamed", "copied", "deleted", "added", "modified", "typechange", "untracked" or "unknown".
        index_status, work_tree_status: Git's own letters, " " where nothing changed.
        staged: Whether the index differs from the commit.
        renamed_from: What it was called before, if it was renamed or copied.
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
        current_branch: The branch, also if it has no commit yet; None if `detached`.
        upstream: The branch it follows, such as "origin/main"; None if there is none.
        ahead, behind: How many commits only the branch has, and only its upstream.
        detached: Whether a commit is checked out instead of a branch.
        files: What changed, in git's order.
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
        """How many files there are in all: staged, unstaged and untracked."""
        return len(self.files)

    @property
    def staged_count(self) -> int:
        """How many are staged, wholly or in part; conflicts count as such."""
        return self._count(lambda file: file.staged)

    @property
    def unstaged_count(self) -> int:
        """How many changed and are not staged at all."""
        return self._count(lambda file: not file.staged and file.status != "untracked")

    @property
    def untracked_count(self) -> int:
        """How many are untracked."""
        return self._count(lambda file: file.status == "untracked")

    @property
    def conflict_count(self) -> int:
        """How many have conflicts."""
        return self._count(lambda file: file.status == "conflict")

    def _count(self, wanted: Callable[[GitFileStatus], bool]) -> int:
        return sum(map(wanted, self.files))


@define(slots=False)
class GitLogEntry:
    """A commit; `date` is the author's, ISO 8601 with offset, `message` its first line."""

    hash: str
    short_hash: str
    author_name: str
    author_email: str
    date: str
    message: str


@define(slots=False)
class GitLogResult(GitResult):
    """Commits, newest first."""

    entries: list[GitLogEntry] = field(default=None, converter=list_or_empty)


@define(slots=False)
class GitBranchInfo:
    """A local branch."""

    name: str
    is_current: bool


@define(slots=False)
class GitBranchListResult(GitResult):
    """The local branches by name; `current` is the one checked out, "" if it is none."""

    branches: list[GitBranchInfo] = field(default=None, converter=list_or_empty)
    current: str = ""


@define(slots=False)
class GitRefUpdate:
    """What became of one branch or tag when it was fetched or pushed.

    Attributes:
        status: "new", "updated", "forced", "deleted", "rejected" or "up to date"; "tag" for a tag that was moved.
        source: What it was taken from, "" for a deletion.
        destination: What was to change: a full name after a push (`refs/heads/main`), a short one after a fetch
            (`origin/main`).
        summary: Git's own words, such as `8d81c82..7dfcf24`.
        reason: Why it was rejected or forced, or "".
    """

    status: str
    source: str
    destination: str
    summary: str = ""
    reason: str = ""


@define(slots=False)
class GitFetchResult(GitResult):
    """What a fetch changed here; `updates` leaves out what was up to date."""

    updates: list[GitRefUpdate] = field(default=None, converter=list_or_empty)


@define(slots=False)
class GitPushResult(GitResult):
    """What a push changed there, in git's order; `remote` is the URL without its credentials."""

    remote: str = ""
    updates: list[GitRefUpdate] = field(default=None, converter=list_or_empty)


@define(slots=False)
class GitDiffFile:
    """A file that differs.

    Attributes:
        path: The file as it is called now, from the top of the work tree.
        status: "added", "copied", "deleted", "modified", "renamed", "typechange", "conflict" or "unknown".
        additions, deletions: Lines; None for a binary file, and where git does not tell.
        renamed_from: What it was called before, if it was renamed or copied.
        is_binary: Whether git takes it for binary.
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
    """How two states differ.

    Attributes:
        files: What differs, in git's order.
        patch: The same as a unified diff, "" if nothing differs.
    """

    files: list[GitDiffFile] = field(default=None, converter=list_or_empty)
    patch: str = field(default="", repr=_repr_lines)

    @property
    def additions(self) -> int:
        """How many lines were added in all."""
        return sum(file.additions or 0 for file in self.files)

    @property
    def deletions(self) -> int:
        """How many lines were deleted in all."""
        return sum(file.deletions or 0 for file in self.files)
