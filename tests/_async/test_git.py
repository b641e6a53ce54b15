"""Git in a session of the private runtime, with the real program."""

from __future__ import annotations

import json

import pytest

from agentbay import (
    AgentBayError,
    AsyncAgentBay,
    AsyncSession,
    Config,
    ConnectionLost,
    GitConflictError,
    GitError,
    GitFileStatus,
    GitNotARepoError,
    GitNotFoundError,
    GitRefUpdate,
    GitRejectedError,
    GitTimeoutError,
    PermissionDeniedError,
)
from tests.scripted import Behaviour, Service, hang_up, refused, tool_says


@pytest.fixture
async def session(session: AsyncSession) -> AsyncSession:
    await session.git.configure_user(".", "Ünïcode Näme", "n@example.com")
    return session


async def write(session: AsyncSession, path: str, text: str) -> None:
    (await session.file_system.write_file(path, text)).unwrap()


async def commit(session: AsyncSession, repo: str, path: str, text: str, message: str) -> str:
    await write(session, f"{repo}/{path}", text)
    await session.git.add(repo)
    made = await session.git.commit(repo, message)
    assert made.commit_hash is not None
    return made.commit_hash


async def test_from_init_to_log(session: AsyncSession) -> None:
    """A repository is created, changed, committed and inspected."""
    git, repo = session.git, "it's a repo"
    made = await git.init(repo, initial_branch="feature/#1")
    assert made.success
    assert made.path == repo
    assert (await git.status(repo)).current_branch == "feature/#1"
    await write(session, f"{repo}/ü x.txt", "one\n")
    await git.add(repo, files=["ü x.txt"])
    assert (await git.status(repo)).files == [GitFileStatus("ü x.txt", "added", "A", " ", True)]
    first = await git.commit(repo, "It's\n\n$(the) `first`", author_name="A B", author_email="a@b")
    second = await git.commit(repo, "second", allow_empty=True)
    log = await git.log(repo)
    assert [entry.message for entry in log.entries] == ["second", "It's"]
    assert [entry.short_hash for entry in log.entries] == [second.commit_hash, first.commit_hash]
    assert [entry.author_name for entry in log.entries] == ["Ünïcode Näme", "A B"]
    assert len((await git.log(repo, max_count=1)).entries) == 1
    assert (await git.status(repo)).is_clean


async def test_branches(session: AsyncSession) -> None:
    """Branches are created, listed, checked out and deleted."""
    git = session.git
    await git.init("r", initial_branch="main")
    at = await commit(session, "r", "a", "1\n", "first")
    await git.create_branch("r", "x")
    await git.create_branch("r", "y", checkout=False)
    found = await git.list_branches("r")
    assert ([branch.name for branch in found.branches], found.current) == (["main", "x", "y"], "x")
    await git.checkout_branch("r", "-")
    assert (await git.status("r")).current_branch == "main"
    await git.delete_branch("r", "y")
    await git.checkout_branch("r", at)
    status = await git.status("r")
    assert (status.detached, status.current_branch) == (True, None)
    assert (await git.list_branches("r")).current == ""
    assert await commit(session, "r", "a", "2\n", "detached") != at
    await git.checkout_branch("r", "x")
    await commit(session, "r", "b", "1\n", "only here")
    await git.checkout_branch("r", "main")
    with pytest.raises(GitError, match="not fully merged"):
        await git.delete_branch("r", "x")
    await git.delete_branch("r", "x", force=True)
    assert [branch.name for branch in (await git.list_branches("r")).branches] == ["main"]


async def test_discarding_changes(session: AsyncSession) -> None:
    """Changes are discarded in the index, the work tree and the branch."""
    git = session.git
    await git.init("r", initial_branch="main")
    await commit(session, "r", "a", "1\n", "first")
    await commit(session, "r", "a", "2\n", "second")
    await write(session, "r/a", "3\n")
    await git.add("r", stage_all=False)
    assert (await git.diff("r", staged=True)).files[0].additions == 1
    await git.restore("r", ["a"], staged=True)
    assert not (await git.status("r")).has_staged
    await git.restore("r", ["a"])
    assert (await git.status("r")).is_clean
    await git.restore("r", ["a"], source="HEAD~1")
    assert (await session.file_system.read_file("r/a")).content == "1\n"
    await git.reset("r", mode="hard", target="HEAD~1")
    assert [entry.message for entry in (await git.log("r")).entries] == ["first"]
    await write(session, "r/b", "x\n")
    await git.add("r")
    await git.reset("r", paths=["b"])
    assert (await git.status("r")).has_untracked
    with pytest.raises(ValueError, match="Invalid reset mode"):
        await git.reset("r", mode="harder")


async def test_diff(session: AsyncSession) -> None:
    """Differences are listed between work tree, index and commits."""
    git = session.git
    await git.init("r", initial_branch="main")
    await commit(session, "r", "old name", "1\n2\n3\n4\n5\n6\n", "first")
    (await session.command.run("cd r && git mv 'old name' 'ü new' && echo 7 >> 'ü new'")).check()
    await git.add("r")
    found = await git.diff("r", staged=True)
    assert [(file.path, file.renamed_from, file.status) for file in found.files] == [("ü new", "old name", "renamed")]
    assert (found.additions, found.deletions) == (1, 0)
    assert found.patch.endswith("+7\n")
    await git.commit("r", "second")
    assert (await git.diff("r")).files == []
    assert [file.path for file in (await git.diff("r", base="HEAD~1", target="HEAD")).files] == ["ü new"]
    assert (await git.diff("r", base="HEAD~1", paths=["nothing"])).patch == ""


async def test_remotes(session: AsyncSession) -> None:
    """Two clones push, fetch and pull, and a push that loses commits is refused."""
    git = session.git
    await git.init("there.git", bare=True, initial_branch="main")
    await git.init("one", initial_branch="main")
    await git.remote_add("one", "origin", "/nowhere")
    await git.remote_add("one", "origin", "/home/wuying/there.git", overwrite=True)
    assert await git.remote_get("one", "origin") == "/home/wuying/there.git"
    assert await git.remote_get("one", "nobody") is None
    await commit(session, "one", "a", "1\n", "first")
    pushed = await git.push("one", set_upstream=True)
    assert pushed.remote == "/home/wuying/there.git"
    assert pushed.updates == [GitRefUpdate("new", "HEAD", "refs/heads/main", "[new branch]")]
    cloned = await git.clone("/home/wuying/there.git", path="two", branch="main", depth=1)
    assert cloned.path == "two"
    await commit(session, "two", "b", "1\n", "second")
    assert [update.status for update in (await git.push("two")).updates] == ["updated"]
    fetched = await git.fetch("one", prune=True)
    assert [(update.status, update.destination) for update in fetched.updates] == [("updated", "origin/main")]
    assert (await git.status("one")).behind == 1
    await git.pull("one")
    assert [entry.message for entry in (await git.log("one")).entries] == ["second", "first"]
    await commit(session, "two", "b", "2\n", "third")
    await git.push("two")
    await commit(session, "one", "c", "1\n", "elsewhere")
    with pytest.raises(GitRejectedError, match="fetch first") as caught:
        await git.push("one")
    assert caught.value.exit_code == 1
    await git.set_config("one", "pull.rebase", "false", scope="local")
    await git.pull("one", remote="origin", branch="main")
    assert [update.status for update in (await git.push("one", tags=True)).updates] == ["updated"]
    await git.clone("/home/wuying/there.git")
    assert (await git.status("there")).current_branch == "main"


async def test_conflict(session: AsyncSession) -> None:
    """A pull that stops at a conflict raises GitConflictError."""
    git = session.git
    await git.init("r", initial_branch="main")
    await git.set_config("r", "pull.rebase", "false", scope="local")
    await commit(session, "r", "a", "1\n", "first")
    await git.create_branch("r", "x")
    await commit(session, "r", "a", "2\n", "theirs")
    await git.checkout_branch("r", "main")
    await commit(session, "r", "a", "3\n", "ours")
    with pytest.raises(GitConflictError, match="Merge conflict in a"):
        await git.pull("r", remote=".", branch="x")
    status = await git.status("r")
    assert (status.has_conflicts, status.conflict_count) == (True, 1)
    with pytest.raises(GitConflictError):
        await git.commit("r", "too early")


async def test_settings(session: AsyncSession) -> None:
    """Settings are written and read in their scope, and unset ones are None."""
    git = session.git
    assert await git.get_config(".", "user.name") == "Ünïcode Näme"
    await git.init("r")
    assert await git.get_config("r", "user.name", scope="local") is None
    await git.set_config("r", "core.pager", "-F", scope="local")
    assert await git.get_config("r", "core.pager", scope="local") == "-F"
    with pytest.raises(GitError):
        await git.set_config("r", "no-section", "x")
    with pytest.raises(ValueError, match="scope"):
        await git.set_config("r", "user.name", "x", scope="system")


async def test_failures(session: AsyncSession) -> None:
    """Each failure has its class, its exit code and git's own text."""
    git = session.git
    with pytest.raises(GitNotARepoError) as not_there:
        await git.status(".")
    assert not_there.value.exit_code == 128
    assert "not a git repository" in not_there.value.stderr
    await git.init("r")
    with pytest.raises(GitError, match="does not have any commits yet") as empty:
        await git.log("r")
    assert type(empty.value) is GitError
    with pytest.raises(GitNotARepoError):
        await git.pull("r", remote="nobody")
    with pytest.raises(GitError) as refused:
        await git.clone("http://user:hunter22@127.0.0.1:1/r.git")
    assert "hunter22" not in f"{refused.value} {vars(refused.value)}"


async def test_git_timeout(session: AsyncSession) -> None:
    """A command beyond its time limit raises GitTimeoutError."""
    await session.git.init("r")
    await write(session, "r/.git/hooks/pre-commit", "#!/bin/sh\nsleep 60\n")
    (await session.command.run("chmod +x r/.git/hooks/pre-commit")).check()
    with pytest.raises(GitTimeoutError) as caught:
        await session.git.commit("r", "x", allow_empty=True, timeout_ms=300)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.exit_code == -1


@pytest.mark.parametrize("strict", [False, True])
async def test_what_is_not_git_keeps_its_class(strict: bool) -> None:
    """Errors that prevented the command keep their class."""
    version = json.dumps({"stdout": "git version 2", "stderr": "", "exit_code": 0})
    stopped = json.dumps({"stdout": "", "stderr": "", "exit_code": -1, "errorMessage": "timed out after 5 ms"})
    failed = json.dumps({"stdout": "", "stderr": "fatal: no", "errorCode": 128})
    raw = "Execution failed. Error code:128 Error message: fatal: not a git repository"
    faults: list[tuple[Behaviour, type[AgentBayError]]] = [
        (hang_up, ConnectionLost),
        (refused("Forbidden", 403), PermissionDeniedError),
        (tool_says(stopped, is_error=True), GitTimeoutError),
        (tool_says(failed, is_error=True), GitError),
        (tool_says(raw, is_error=True), GitNotARepoError),
    ]
    for fault, kind in faults:
        with Service([tool_says(version), fault]) as service:
            async with AsyncAgentBay("akm-EXAMPLE", Config(endpoint=service.url), strict=strict) as bay:
                with pytest.raises(AgentBayError) as caught:
                    await AsyncSession(bay, "session-x").git.status(".")
        assert type(caught.value) is kind
        assert service.count() == 2
    shell = json.loads(service.requests[0].fields["Args"])
    assert shell == {
        "command": "git '--version'",
        "timeout_ms": 30000,
        "envs": {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
    }


async def test_no_git(session: AsyncSession, bay: AsyncAgentBay) -> None:
    """Without git the first call says so, and asks again the next time."""
    async with bay.session() as bare:
        assert await bare.env.set({"PATH": "/nowhere"})
        with pytest.raises(GitNotFoundError) as caught:
            await bare.git.status(".")
        assert caught.value.exit_code == 127
        assert await bare.env.set({"PATH": "/usr/local/bin:/usr/bin:/bin"})
        assert (await bare.git.init("r")).success
