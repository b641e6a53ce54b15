"""Use git in a session: clone, branch, change, test, commit, and push.

    python examples/git_workflow.py

The remote repository is one in the session, so this needs no network; elsewhere its URL is all that changes.
"""

from __future__ import annotations

from agentbay import AgentBay, GitRejectedError, Session

REMOTE, WORK, OTHER = "shop.git", "shop", "colleague"
CODE = "def price(net: int) -> int:\n    return net * 119 // 100\n"
TEST = "from price import price\nassert price(100) == 119, price(100)\nprint('the test passes')\n"


def prepare(session: Session) -> None:
    """Create the remote repository with a first commit."""
    git = session.git
    git.configure_user(".", "Ada", "ada@example.com")
    git.init(REMOTE, initial_branch="main", bare=True)
    git.clone(REMOTE, path=WORK)
    session.file_system.write_file(f"{WORK}/price.py", CODE.replace("119", "116")).unwrap()
    git.add(WORK)
    git.commit(WORK, "Price goods")
    git.push(WORK, remote="origin", branch="main", set_upstream=True)


def mend(session: Session) -> None:
    """Fix the code on a new branch, and push it."""
    git, files = session.git, session.file_system
    git.create_branch(WORK, "mend-tax")
    files.edit_file(f"{WORK}/price.py", [{"oldText": "116", "newText": "119"}]).unwrap()
    files.write_file(f"{WORK}/check.py", TEST).unwrap()
    print(session.command.run("python3 check.py", cwd=WORK).check().stdout.strip())
    for changed in git.status(WORK).files:
        print("changed:", changed.path)
    git.add(WORK, files=["price.py", "check.py"])
    git.commit(WORK, "Use this year's tax")
    git.push(WORK, remote="origin", branch="mend-tax", set_upstream=True)


def collide(session: Session) -> None:
    """Push to a branch that a colleague has pushed to meanwhile."""
    git = session.git
    git.clone(REMOTE, path=OTHER, branch="mend-tax")
    for place in (OTHER, WORK):
        git.commit(place, f"Note of {place}", allow_empty=True)
    git.push(OTHER, remote="origin", branch="mend-tax")
    try:
        git.push(WORK, remote="origin", branch="mend-tax")
    except GitRejectedError:
        print("rejected: fetch first")
        git.set_config(WORK, "pull.rebase", "true")
        git.pull(WORK, remote="origin", branch="mend-tax")
        git.push(WORK, remote="origin", branch="mend-tax")


def main() -> None:
    """Run all steps in one session."""
    with AgentBay.local() as bay, bay.session() as session:
        prepare(session)
        mend(session)
        collide(session)
        for entry in session.git.log(WORK).entries:
            print(entry.short_hash, entry.message)


if __name__ == "__main__":
    main()
