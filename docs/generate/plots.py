"""Draw `docs/plots` from the committed results of the benchmarks.

    python docs/generate/plots.py [--check]

Pictures follow the colours of the page, light or dark: `prefers-color-scheme` in a picture is that of the page.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PLOTS = ROOT / "docs" / "plots"
LIGHT = {"text": "#1a1a2e", "faint": "#ccd0dd", "a": "#4051b5", "b": "#c2410c", "c": "#0f766e", "d": "#7e7e8c"}
DARK = {"text": "#e6e8f0", "faint": "#474b5e", "a": "#93a4ff", "b": "#fb923c", "c": "#2dd4bf", "d": "#a5a8b5"}
CLIENTS = {  # letter of the colour, and shape around (0, 0)
    "ours": ("agentbay", "a", '<circle r="6.5"/>'),
    "aiohttp": ("aiohttp", "c", '<path d="M0-6L6 5H-6z"/>'),
    "bare": ("bare sockets", "d", '<path d="M0-6L6 0L0 6L-6 0z"/>'),
    "official": ("official", "b", '<rect x="-5" y="-5" width="10" height="10"/>'),
}
RATIOS = {  # row of the picture: measurement in `client.json`, and figure
    "a call, async": ("async one by one, https", "cpu_us"),
    "a call of 50 at once": ("async 50 at once, https", "cpu_us"),
    "a call of 200 at once": ("async 200 at once, https", "cpu_us"),
    "a call of 1,000 at once": ("async 1,000 at once, https", "cpu_us"),
    "a result of 1 MiB, async": ("async 1 MiB result, https", "cpu_us"),
    "a call, sync": ("sync one by one, https", "cpu_us"),
    "a result of 1 MiB, sync": ("sync 1 MiB result, https", "cpu_us"),
    "start to first answer, async": ("first call, async", "ms"),
    "start to first answer, sync": ("first call, sync", "ms"),
    "32 sessions at once, duration": ("fan-out, async, https", "s"),
    "size installed": ("installed", "mb"),
}
GROWTH = {  # measurement in `growth.json`: title of its picture, and unit of its x
    "sessions": ("Calls, by live sessions", ""),
    "calls": ("Calls at once, by their number", ""),
    "size": ("A file, by its size", "B"),
    "files": ("A directory, by its files", ""),
    "labels": ("Labels, by their number", ""),
    "events": ("Changes of files until reported", ""),
}
WIDTH, LEFT, RIGHT, ROW = 800, 215, 80, 30  # of the ratios, in pixels
CELL, PLOT, INDENT, TOP = (400, 290), (300, 190), 60, 52  # of a picture of growth, in pixels
Scale = Callable[[float], float]


def style() -> str:
    """Return the colours, as a style sheet."""

    def rules(colours: dict[str, str]) -> str:
        letters = "".join(f".{name}{{fill:{colours[name]};stroke:{colours[name]}}}" for name in "abcd")
        return f"text{{fill:{colours['text']};stroke:none}}.faint{{stroke:{colours['faint']};fill:none}}{letters}"

    plain = "text{font:13px sans-serif}.bold{font-weight:bold}.end{text-anchor:end}.middle{text-anchor:middle}"
    lines = "polyline{fill:none!important;stroke-width:2}.range{stroke-width:2;opacity:.5}.guide{stroke-dasharray:3 4}"
    return f"<style>{plain}{lines}{rules(LIGHT)}@media(prefers-color-scheme:dark){{{rules(DARK)}}}</style>"


def picture(title: str, width: int, height: int, parts: Iterator[str]) -> str:
    """Return a picture as SVG."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", style(), *parts, "</svg>"]) + "\n"


def text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}">{escape(words)}</text>'


def line(x: float, y: float, u: float, v: float, kind: str = "faint") -> str:
    return f'<path d="M{x:.1f} {y:.1f}L{u:.1f} {v:.1f}" class="{kind}"/>'


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """Return where a value is on a logarithmic axis from one pixel to another."""
    return lambda value: start + (end - start) * math.log(value / low) / math.log(high / low)


def draw_ratios(figures: dict[str, Any]) -> Iterator[str]:
    """Draw each measurement as a row, with a mark for each client."""
    rows = [(name, figures[cell], key) for name, (cell, key) in RATIOS.items() if cell in figures]
    bottom = 60 + ROW * len(rows)
    at = logarithmic(0.01, 50, LEFT, WIDTH - RIGHT)
    for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50):
        yield line(at(tick), 45, at(tick), bottom, "a" if tick == 1 else "faint")
        yield text(at(tick), bottom + 18, f"{tick:g}", "middle")
    yield text(at(1), 38, "httpx = 1", "middle")
    for number, (words, colour, shape) in enumerate(CLIENTS.values()):
        yield f'<g class="{colour}" transform="translate({LEFT + 8 + 130 * number} 12)">{shape}</g>'
        yield text(LEFT + 20 + 130 * number, 17, words)
    for number, (name, cell, key) in enumerate(rows):
        y = 60 + ROW * number + ROW // 2
        yield text(LEFT - 12, y + 4, name, "end")
        ratios = {client: found.get("ratio", found[key] / cell["httpx"][key]) for client, found in cell.items()}
        yield text(WIDTH - RIGHT + 20, y + 4, f"{ratios['ours']:.2f}", "bold")
        for client in [client for client in reversed(CLIENTS) if client in cell]:
            (_, colour, shape), found, ratio = CLIENTS[client], cell[client], ratios[client]
            yield line(at(found.get("least", ratio)), y, at(found.get("most", ratio)), y, f"{colour} range")
            yield f'<g class="{colour}" transform="translate({at(ratio):.1f} {y})">{shape}</g>'


def short(value: float, unit: str) -> str:
    """Return a power of ten in few letters."""
    for prefix, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size and (unit or size > 10**3):
            return f"{value / size:g} {prefix}{unit}"
    return f"{value:,g} {unit}".strip()


def decades(values: list[float]) -> list[float]:
    """Return the powers of ten around values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return [10.0**number for number in range(low, max(high, low + 1) + 1)]


def draw_growth(title: str, unit: str, found: dict[str, Any]) -> Iterator[str]:
    """Draw one measurement's lines, on logarithmic axes."""
    lines = {name: [(float(x), y) for x, y in values.items()] for name, values in found["ms"].items()}
    points = [point for values in lines.values() for point in values]
    xs, ys = decades([x for x, _ in points]), decades([y for _, y in points])
    width, bottom = PLOT[0], TOP + PLOT[1]
    at_x = logarithmic(xs[0], max(x for x, _ in points), INDENT, INDENT + width)
    at_y = logarithmic(ys[0], ys[-1], bottom, TOP)
    yield text(INDENT, 16, title, "bold")
    for tick in xs[:: 2 if len(xs) > 6 else 1]:
        if tick <= max(x for x, _ in points):
            yield line(at_x(tick), TOP, at_x(tick), bottom)
            yield text(at_x(tick), bottom + 18, short(tick, unit), "middle")
    for tick in ys:
        yield line(INDENT, at_y(tick), INDENT + width, at_y(tick))
        yield text(INDENT - 6, at_y(tick) + 4, f"{tick:,g}", "end")
    yield text(INDENT - 6, TOP - 10, "ms", "end")
    for (name, values), colour, column in zip(lines.items(), "abc", (0, 95, 190), strict=False):
        (end_x, end_y), (start_x, _) = values[-1], values[0]
        start_x = max(start_x, end_x * ys[0] / end_y)  # in proportion to x, from the lowest line
        yield line(at_x(start_x), at_y(end_y * start_x / end_x), at_x(end_x), at_y(end_y), f"{colour} range guide")
        places = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in values)
        yield f'<polyline class="{colour}" points="{places}"/>'
        yield from (f'<circle class="{colour}" cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="2.5"/>' for x, y in values)
        yield line(INDENT + column, 30, INDENT + column + 12, 30, f"{colour} range")
        yield text(INDENT + column + 17, 34, name)


def draw_all_growth(figures: dict[str, Any]) -> Iterator[str]:
    """Draw the measurements of growth, two in a row."""
    for number, (name, (title, unit)) in enumerate(GROWTH.items()):
        if name not in figures:
            continue
        yield f'<g transform="translate({number % 2 * CELL[0]} {number // 2 * CELL[1]})">'
        yield from draw_growth(title, unit, figures[name])
        yield "</g>"


def pictures() -> dict[Path, str]:
    """Return all pictures."""
    client, growth = (
        json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))["figures"]
        for name in ("client", "growth")
    )
    height = 60 + ROW * sum(cell in client for cell, _ in RATIOS.values()) + 30
    title = "Costs as ratios to httpx, on a logarithmic axis"
    rows = -(-len(GROWTH) // 2)
    return {
        PLOTS / "ratios.svg": picture(title, WIDTH, height, draw_ratios(client)),
        PLOTS / "growth.svg": picture(
            "How costs grow, on logarithmic axes", 2 * CELL[0], rows * CELL[1], draw_all_growth(growth)
        ),
    }


def main() -> int:
    """Write or check the pictures, and return the exit code."""
    made = pictures()
    wrong = [path for path, svg in made.items() if not path.exists() or path.read_text(encoding="utf-8") != svg]
    for path in wrong:
        if "--check" in sys.argv[1:]:
            print(f"{path.relative_to(ROOT)}: run docs/generate/plots.py")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(made[path], encoding="utf-8")
    return 1 if wrong and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
