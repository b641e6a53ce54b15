"""The rules of `ignore=`, beside those of git itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from agentbay._local_tree import scan_tree
from agentbay._transport.ignore_rules import gitignore_matcher

FILES = [
    "a", "a.pyc", "aXb", "a.b", "abc", "ac", "cx", "[a-c]x", "d/a", "d/e/a", "d/e/a.pyc", "d/#note", "#note", "!bang",
    "-", "sp ace", "trail ", "x/d/a", "x/a", "y.pyc/x", "src/node_modules/p.js", "node_modules/src/q.js", "new\nline/a",
    "a\n", "7y", "]z", "\\]z", "-x", "e.log", "e.log\r", "und", "ünd", "tab\t", "à",
]  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a git repository with the files, and an empty directory."""
    root = tmp_path_factory.mktemp("tree")
    subprocess.run(["git", "init", "-q", root], check=True)
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    (root / "empty").mkdir()
    return root


def kept_by_git(tree: Path, patterns: list[str]) -> set[str]:
    """Return the paths that git does not ignore."""
    (tree / ".git/info/exclude").write_text("".join(f"{pattern}\n" for pattern in patterns))
    paths = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if ".git" not in path.parts}
    git = subprocess.run(
        ["git", "-C", tree, "check-ignore", "--no-index", "-z", "--stdin"],
        input="\0".join(sorted(paths)).encode(),
        capture_output=True,
    )
    assert git.returncode in (0, 1), git.stderr
    return paths - set(git.stdout.decode().split("\0"))


@pytest.mark.parametrize(
    "patterns",
    [
        ["*.pyc"], ["/a"], ["d/a"], ["**/a"], ["d/**"], ["d/e/"], ["a?c"], ["[a-c]x"], ["[!a]x"], ["[^a]x"], ["a.b"],
        ["*"], ["*/"], ["/*"], ["**"], ["**/"], ["d/**/"], ["d/**/a"], ["d/"], ["a/"], ["empty"], ["empty/"],
        ["# a comment"], ["\\#note"], ["\\!bang"], ["#note"], [""], ["/"], ["!"], ["\\"], ["[]-]"], ["\\a"],
        ["a "], ["trail\\ "], ["sp ace"], ["*", "!*/", "!*.pyc"], ["d/**", "!d/e/"], ["d/**", "!d/e/", "!d/e/a"],
        ["[[:digit:]]y"], ["[![:digit:]]y"], ["[[:alpha:][:punct:]]"], ["[[:nothing:]]"], ["[[:digit:"], ["[a-c"],
        ["[\\]]z"], ["[]]z"], ["[c-a]x"], ["[a\\-c]x"], ["d[/]a"], ["/[ad/]"], ["d[!a]a"], ["*.log\r"], ["trail\\  "],
        ["?nd"], ["[ü]nd"], ["tab\t"], ["tab"], ["a\n*.pyc"],
        ["node_modules/", "!src/"], ["d/", "!d/a"], ["!a", "a"], ["a", "!d/**"], ["a", "!/a"], ["*.pyc", "!y*"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_rules_are_gits(tree: Path, patterns: list[str]) -> None:
    """A directory is read without what git ignores there."""
    check_kept(tree, patterns)


PARTS = [
    *"ab7-][\\^!*?/ \t#dezy", "**", "[[:digit:]]", "[![:alnum:]]", "[!a]", "[^a-z]", "[a-c]", "[]-]", "[[:space:]]",
    "[\\]]", "[a\\-z]", "[[:x:]]", "[a/]", "[:", "\\ ", "ü", "à",
]  # fmt: skip


@given(st.lists(st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map("".join), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_any_rules_are_gits(tree: Path, patterns: list[str]) -> None:
    """Rules made of anything are read as git reads them."""
    check_kept(tree, patterns)


def check_kept(tree: Path, patterns: list[str]) -> None:
    ignored = gitignore_matcher(patterns)
    scan = scan_tree(tree, lambda path, is_directory: path == ".git" or ignored(path, is_directory), digests=False)
    kept = set(scan.entries)
    assert kept == kept_by_git(tree, patterns)
