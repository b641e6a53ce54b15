"""Every Python block of the README and the documentation runs.

The examples of `docs/api` are bodies of tests: `tests/_async/test_reference.py` and its twin.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

import agentbay
from tests.adb_phone import example_phone

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "llms.txt",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "frameworks").glob("*.md")),
]
SYBIL = Sybil(parsers=[PythonCodeBlockParser()], path=str(ROOT))

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_run(
    page: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of a page run in order without warnings."""
    if page.name == "phone.md":
        monkeypatch.setenv("ADB_SERVER_SOCKET", example_phone(tmp_path).address)
    for example in SYBIL.parse(page).examples():
        example.evaluate()
    assert not capsys.readouterr().err


def test_blocks_are_typed(tmp_path: Path) -> None:
    """The blocks of all pages pass `mypy --strict`, with what the check of the package has cached."""
    pytest.importorskip("mypy")
    for page in PAGES:
        lines: list[str] = []
        for example in SYBIL.parse(page).examples():
            lines += [""] * (example.line - len(lines)) + str(example.parsed).splitlines()  # so line numbers agree
        (tmp_path / f"page_{page.stem.replace('-', '_')}.py").write_text("\n".join(lines) + "\n")
    modules = sorted(path.name for path in tmp_path.glob("*.py"))
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    command = [sys.executable, "-m", "mypy", "--strict", *options, *modules]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.stdout.startswith("Success: no issues found"), done.stdout + done.stderr


def test_pages_have_blocks() -> None:
    """Code blocks are found, two of them in the README."""
    assert len(list(SYBIL.parse(PAGES[0]).examples())) >= 2


def test_every_error_has_a_row() -> None:
    """The page of errors describes every error class."""
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    public = {name: getattr(agentbay, name) for name in agentbay.__all__}
    errors = {name for name, kind in public.items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert {name for name in errors if f"`{name}`" not in text} == set()
