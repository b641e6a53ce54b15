"""The examples of the documentation that need a framework, which the suites run."""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "frameworks.md"


def run_example(section: str, **names: Any) -> dict[str, Any]:
    """Run the example of a section with these names, and return the names that it knows then."""
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    [example] = re.findall(r"^```py\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    done = eval(compile(example, f"{PAGE.name}, {section}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if done is not None:
        asyncio.run(done)
    return names
