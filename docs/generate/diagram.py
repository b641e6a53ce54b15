"""Draw `docs/architecture.svg`, the package's layers and imports, from the code.

    python docs/generate/diagram.py [--check]

The layers are those that import-linter holds the code to (`pyproject.toml`); the arrows are imports that grimp finds.
An import that is implied by others (a room that reaches another one through a third) is left out.
"""

from __future__ import annotations

import sys
import tomllib
from html import escape
from itertools import product
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
SVG = ROOT / "docs" / "architecture.svg"
WIDTH, ROW, BOX, TALL = 1000, 92, 124, 40  # pixels
STYLE = (
    "rect{fill:#eef2ff;stroke:#4051b5;rx:6}text{font:14px sans-serif;text-anchor:middle;fill:#1a1a2e}"
    "path{fill:none;stroke:#8a93b8;stroke-width:1.3;marker-end:url(#tip)}svg{background:#fff}"
)
TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z" style="fill:#8a93b8;stroke:none"/></marker></defs>'
)


def layers() -> list[list[str]]:
    """Return the rooms in layers, highest first."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(one for one in config["tool"]["importlinter"]["contracts"] if one["type"] == "layers")
    return [[room.strip(" ()") for room in layer.split("|")] for layer in contract["layers"]]


def imports(rooms: list[str]) -> set[tuple[str, str]]:
    """Return which room imports which."""
    graph = grimp.build_graph("agentbay", cache_dir=None)
    for room in rooms:
        graph.squash_module(f"agentbay.{room}")
    pairs = {(a, b) for a, b in product(rooms, rooms) if a != b}
    return {(a, b) for a, b in pairs if graph.direct_import_exists(importer=f"agentbay.{a}", imported=f"agentbay.{b}")}


def reduced(edges: set[tuple[str, str]], rank: dict[str, int]) -> list[tuple[str, str]]:
    """Drop edges that others imply (transitive reduction), and those that break layers."""
    below: dict[str, set[str]] = {}
    for room in sorted(rank, key=rank.__getitem__, reverse=True):
        direct = {b for a, b in edges if a == room and rank[b] > rank[room]}
        below[room] = direct | {far for near in direct for far in below[near]}
    downward = [(a, b) for a, b in edges if rank[a] < rank[b]]
    return sorted((a, b) for a, b in downward if not any(b in below[c] for x, c in downward if x == a and c != b))


def draw(rows: list[list[str]], edges: list[tuple[str, str]]) -> str:
    """Return the picture as SVG."""
    place = {
        room: (WIDTH * (column + 1) // (len(row) + 1), TALL + ROW * number)
        for number, row in enumerate(rows)
        for column, room in enumerate(row)
    }
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {ROW * len(rows)}" role="img">',
        "<title>The rooms of agentbay, and who imports whom</title>",
        f"<style>{STYLE}</style>",
        TIP,
    ]
    for above, below in edges:
        (x, y), (u, v) = place[above], place[below]
        y, v = y + TALL // 2, v - TALL // 2
        lines.append(f'<path d="M{x} {y}C{x} {y + 34} {u} {v - 34} {u} {v}"/>')
    for room, (x, y) in place.items():
        lines.append(f'<rect x="{x - BOX // 2}" y="{y - TALL // 2}" width="{BOX}" height="{TALL}"/>')
        lines.append(f'<text x="{x}" y="{y + 5}">{escape(room)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def main() -> int:
    """Write or check the picture, and return the exit code."""
    rows = layers()
    rank = {room: number for number, row in enumerate(rows) for room in row}
    picture = draw(rows, reduced(imports([*rank]), rank))
    if "--check" not in sys.argv[1:]:
        SVG.write_text(picture, encoding="utf-8")
        return 0
    fresh = SVG.exists() and SVG.read_text(encoding="utf-8") == picture
    print("" if fresh else "docs/architecture.svg: run docs/generate/diagram.py\n", end="")
    return 0 if fresh else 1


if __name__ == "__main__":
    sys.exit(main())
