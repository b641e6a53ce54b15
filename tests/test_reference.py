"""The API reference is generated, complete, and covers the contract's page.

`golden/session_page.json` has that page's facts, as it writes them; what its methods do is tested by
`_async/test_session_page.py`.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

import agentbay

ROOT = Path(__file__).parent.parent
API = ROOT / "docs" / "api"
FACTS = json.loads((ROOT / "tests" / "golden" / "session_page.json").read_text(encoding="utf-8"))
PAGES = {"AsyncSession": "async/async-session.md", "Session": "sync/session.md", "SessionInfo": "common/session.md"}
SIGNATURES = [
    (flavour(owner), flavour(text), name)
    for owner, methods in FACTS["classes"].items()
    for name, text in methods.items()
    for flavour in (str, lambda text: text.replace("async def", "def").replace("Async", ""))
]


def section(owner: str, name: str) -> str:
    """Return what a page says about a method."""
    page = (API / PAGES[owner]).read_text(encoding="utf-8")
    of_class = re.search(rf"^## {owner}\n(.*?)(?=^## )", page, re.MULTILINE | re.DOTALL)
    assert of_class
    escaped = re.escape(name.replace("_", "\\_"))
    found = re.search(rf"^### {escaped}\n(.*?)(?=^### |\Z)", of_class[1], re.MULTILINE | re.DOTALL)
    assert found, f"{owner}.{name} is not in the reference"
    return found[1]


def normal(signature: str) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """Return a signature with types in our spelling."""
    signature = re.sub(r"Optional\[(\w+)\]", r"\1 | None", signature).replace("Dict[", "dict[")
    signature = re.sub(r': "(\w+)"', r": \1", signature)
    node = ast.parse(f"{signature}: ...").body[0]
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    return node


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "src").is_dir(), reason="scripts/package tests a wheel, without the sources")
def test_pages_are_those_of_the_sources() -> None:
    """The stored pages equal what the generator writes."""
    line = [sys.executable, "docs/generate/reference.py", "--check"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_every_public_name_has_a_place() -> None:
    """The reference of both flavours contains every public name."""
    text = "".join(path.read_text(encoding="utf-8") for path in API.rglob("*.md"))
    headings = set(re.findall(r"^## (\w+)$", text, re.MULTILINE))
    assert {name for name in agentbay.__all__ if not name.startswith("_")} <= headings
    names = {folder: {path.name for path in (API / folder).iterdir()} for folder in ("async", "sync")}
    assert {name.removeprefix("async-") for name in names["async"]} == names["sync"]
    assert set(FACTS["pages"]) <= names["async"]


@pytest.mark.parametrize(("owner", "text", "name"), SIGNATURES)
def test_signatures(owner: str, text: str, name: str) -> None:
    """Every signature of the contract's page holds, and `timeout` follows by name."""
    shown = re.search(r"```py\n(?:@\w+\n)*(.*?)\n```", section(owner, name), re.DOTALL)
    assert shown
    ours, theirs = normal(shown[1]), normal(text)
    assert type(ours) is type(theirs)
    for added, default in zip(ours.args.kwonlyargs, ours.args.kw_defaults, strict=True):
        assert (ast.unparse(added), default and ast.unparse(default)) == ("timeout: float | None", "None")
    ours.args.kwonlyargs, ours.args.kw_defaults = [], []
    assert ast.unparse(ours.args) == ast.unparse(theirs.args)
    if theirs.returns is not None:
        assert ours.returns is not None
        assert ast.unparse(ours.returns) == ast.unparse(theirs.returns)


@pytest.mark.parametrize("owner", ["AsyncSession", "Session"])
def test_sections(owner: str) -> None:
    """Every section of the contract's page has its counterpart in ours."""
    for name, titles in FACTS["sections"].items():
        text = section(owner, name)
        assert [title for title in re.findall(r"^\*\*(\w+)\*\*:", text, re.MULTILINE) if title in titles] == titles
        assert all(f"`{error}`" in text for error in FACTS["raises"][name])


def test_fields() -> None:
    """The result classes have the fields of the contract's page."""
    for name, kinds in FACTS["fields"].items():
        fields = {field.name: field.type for field in attrs.fields(getattr(agentbay, name))}
        assert {field: fields[field] for field in kinds} == kinds
