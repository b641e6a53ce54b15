"""MkDocs hooks that add pages from the checkout and rewrite their links.

The sources' links are those that a repository's browser follows (`../examples/faults.py`); here they lead to the page
that has the thing.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {  # file at the top of the checkout -> page
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "LICENSE": "license.md",
    "llms.txt": "llms.txt",
}
_LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill in the generated parts of the navigation."""
    docs = Path(config.docs_dir)
    for entry in config.nav or []:
        if "API reference" in entry:
            entry["API reference"] = [
                {title: [_entry(page, docs) for page in sorted((docs / "api" / folder).glob("*.md"))]}
                for title, folder in (("Asynchronous", "async"), ("Synchronous", "sync"), ("Shared", "common"))
            ]
        if "Notebooks" in entry:
            entry["Notebooks"] += [page.relative_to(docs).as_posix() for page in sorted(docs.glob("notebooks/*.ipynb"))]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add pages from outside `docs`, and one page with the examples' sources."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, "examples.md", content=_examples()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links into the checkout as links into the site."""
    uri = page.file.src_uri
    top = next((source for source, name in PAGES.items() if name == uri), None)
    here = top or f"docs/{uri}"

    def lead(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), link[2]))
        anchor = link[3] or ""
        if target.startswith("examples/") and target.endswith(".py"):
            target, anchor = "docs/examples.md", f"#{Path(target).stem}"
        if target == "examples":
            target = "docs/examples.md"
        target = PAGES.get(target, target.removeprefix("docs/"))
        return f"{link[1]}{posixpath.relpath(target, posixpath.dirname(uri) or '.')}{anchor}{link[4]}"

    return _LINK.sub(lead, markdown)


def _entry(page: Path, docs: Path) -> dict[str, str]:
    """Return the navigation entry of a reference page."""
    title = page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").removesuffix("API Reference")
    return {title.rstrip(" :"): page.relative_to(docs).as_posix()}


def _examples() -> str:
    parts = [
        "# Examples",
        "Each is a whole program with one purpose. The test suite runs them all, as they stand here.",
    ]
    paths = sorted((ROOT / "examples").glob("*.py"))
    parts += [f"## {path.stem}\n\n```python\n{path.read_text(encoding='utf-8')}```" for path in paths]
    return "\n\n".join(parts) + "\n"
