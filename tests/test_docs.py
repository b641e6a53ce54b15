"""Every Python block of the README and the documentation runs, on the local runtime."""

from __future__ import annotations

from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SYBIL = Sybil(parsers=[PythonCodeBlockParser()], path=str(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_run(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the page shows runs as it stands there, block after block, and complains of nothing."""
    for example in SYBIL.parse(page).examples():
        example.evaluate()
    assert not capsys.readouterr().err


def test_pages_have_blocks() -> None:
    """The pages are really read: the README alone has two programs."""
    assert len(list(SYBIL.parse(PAGES[0]).examples())) >= 2
