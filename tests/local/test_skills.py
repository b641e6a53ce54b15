"""Skills that cannot be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agentbay.local.skills import SkillError, SkillFolder


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no front matter", "it must begin with its name and description between two lines of ---"),
        ("---\nname: a\n", "it must begin"),
        ("---\nname: a\ndescription: [\n---\n", "is no YAML"),
        ("---\n- a\n---\n", "there must be a name and a description"),
        ("---\nname: ../a\ndescription: b\n---\n", "its name must be"),
        ("---\ndescription: b\n---\n", "its name must be"),
        ("---\nname: a\n---\n", "it needs a description"),
        ("---\nname: a\ndescription: b\n---\n" + "x" * 2_000_000, "it is larger than 1048576 bytes"),
    ],
)
def test_a_broken_skill_is_named(tmp_path: Path, content: str, said: str):
    """The error says which file is broken, and how."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "SKILL.md").write_text(content)
    with pytest.raises(SkillError, match=f"^{re.escape(str(tmp_path))}/broken/SKILL.md: .*{said}"):
        SkillFolder(str(tmp_path)).skills()


def test_two_skills_of_one_name(tmp_path: Path):
    """The error names both directories."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "SKILL.md").write_text("---\r\nname: same\r\ndescription: text\r\n---\r\n")
    with pytest.raises(SkillError, match=r"/one and .*/two have the same name, 'same'"):
        SkillFolder(str(tmp_path)).skills()
