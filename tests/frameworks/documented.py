"""The examples of the documentation that need a framework, which the suites run."""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path
from typing import Any

PAGES = Path(__file__).parents[2] / "docs" / "frameworks"


def run_example(page: str, **names: Any) -> dict[str, Any]:
    """Run the example of a page with these names, and return the names that it knows then."""
    [example] = re.findall(r"^```py\n(.*?)^```$", (PAGES / f"{page}.md").read_text(), re.DOTALL | re.MULTILINE)
    done = eval(compile(example, f"{page}.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if done is not None:
        asyncio.run(done)
    return names
