"""HTML building blocks for results that a notebook shows.

All text is escaped here. Colours are those of the notebook, or readable on light and dark. The module is imported only
when a notebook shows something, which keeps `import agentbay` fast.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from .ansi import ansi_to_html, strip_ansi

_MAX_ROWS = 200  # rows of a table
_MAX_CHARACTERS = 100_000  # characters of a text
_MAX_BYTES = 256  # bytes of a binary file, in hexadecimal
_IMAGE_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
_ERROR_COLOUR = "#d9534f"
_NO_TEX = "tex2jax_ignore mathjax_ignore"  # notebooks typeset TeX in any text, and TeX can set links
_NOTE_STYLE = "opacity:.7;font-size:90%"
_CELL_STYLE = "text-align:left;vertical-align:top;padding:.15em .8em"
_PRE_STYLE = (
    "margin:.2em 0;padding:0 .6em;max-height:32em;overflow:auto;white-space:pre-wrap;color:inherit;background:none;"
    "font-family:var(--jp-code-font-family,monospace);line-height:1.3"
)


def format_size(number: float) -> str:
    """Format a number of bytes for people, such as 1.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(number) < 999.95:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def stack(*parts: str) -> str:
    """Stack HTML parts vertically."""
    return f'<div class="{_NO_TEX}">{"".join(parts)}</div>'


def note(text: str) -> str:
    """Return a small remark, or "" without text."""
    return f'<div class="{_NO_TEX}" style="{_NOTE_STYLE}">{escape(text)}</div>' if text else ""


def fact_table(title: str, known: Mapping[str, object]) -> str:
    """Return a table of names and values, without empty values."""
    lines = "".join(
        f'<tr><th style="{_CELL_STYLE}">{escape(name)}</th><td style="{_CELL_STYLE}">{escape(str(value))}</td></tr>'
        for name, value in known.items()
        if value not in (None, "")
    )
    return stack(f"<b>{escape(title)}</b>" if title else "", f"<table>{lines}</table>")


def table(columns: Sequence[str], rows: Sequence[Iterable[object]], remark: str = "") -> str:
    """Return a table with a header and one row per item."""
    head = "".join(f'<th style="{_CELL_STYLE}">{escape(name)}</th>' for name in columns)
    body = "".join(
        "<tr>"
        + "".join(f'<td style="{_CELL_STYLE}">{escape("" if cell is None else str(cell))}</td>' for cell in row)
        + "</tr>"
        for row in rows[:_MAX_ROWS]
    )
    left = len(rows) - _MAX_ROWS
    more = f"{left} more are not shown." if left > 0 else ""
    shown = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if rows else note("(nothing)")
    return stack(shown, note(more), note(remark))


def page_count(here: int, total: int | None) -> str:
    """Return "N of TOTAL" if a list has more pages, else ""."""
    return f"{here} of {total}" if total and total > here else ""


def text(content: str, *, wrong: bool = False) -> str:
    """Return text as a terminal shows it.

    Long text keeps its end.

    Args:
        content: The text, with ANSI sequences.
        wrong: Whether to mark it as an error.
    """
    if not content:
        return ""
    kept = content[-_MAX_CHARACTERS:]
    cut = f"{len(content) - len(kept)} characters before this are not shown." if kept != content else ""
    edge = f";border-left:3px solid {_ERROR_COLOUR}" if wrong else ""
    return note(cut) + f'<pre style="{_PRE_STYLE}{edge}">{ansi_to_html(kept)}</pre>'


def document(content: str) -> str:
    """Return the text of a file.

    Long text keeps its beginning.
    """
    kept = content[:_MAX_CHARACTERS]
    cut = f"{len(content) - len(kept)} characters after this are not shown." if kept != content else ""
    return f'<pre style="{_PRE_STYLE}">{escape(strip_ansi(kept))}</pre>' + note(cut)


def binary(content: bytes) -> str:
    """Return an image, or the first bytes of another file in hexadecimal."""
    kind = next((kind for start, kind in _IMAGE_SIGNATURES.items() if content.startswith(start)), "")
    if kind:
        return stack(image(kind, base64.b64encode(content).decode()), note(format_size(len(content))))
    shown = content[:_MAX_BYTES].hex(" ")
    more = f", of which the first {_MAX_BYTES}" if len(content) > _MAX_BYTES else ""
    return stack(f'<pre style="{_PRE_STYLE}">{shown}</pre>', note(f"{format_size(len(content))}{more}"))


def image(kind: str, content: str) -> str:
    """Return an image of base64 content.

    Browsers run no scripts in an `img` element, not even those of an SVG.
    """
    return f'<img src="data:{kind};base64,{escape(content)}" style="max-width:100%">'


def failure(message: str, hint: str = "", request_id: str = "") -> str:
    """Return an error message with its hint and request id."""
    message_html = (
        f'<pre style="{_PRE_STYLE};border-left:3px solid {_ERROR_COLOUR}">{escape(message or "failed")}</pre>'
    )
    return stack(message_html, note(hint), note(f"request {request_id}" if request_id else ""))


def meters(title: str, measured: Mapping[str, tuple[float, str]], remark: str = "") -> str:
    """Return a bar chart as SVG.

    Args:
        title: Heading.
        measured: By name, the share from 0 to 1 and its label.
        remark: Note below the chart.
    """
    lines = []
    for number, (name, (share, label)) in enumerate(measured.items()):
        y, full = 22 * number, max(0.0, min(1.0, share))
        colour = _ERROR_COLOUR if full > 0.9 else "#4c8dd6"
        lines.append(
            f'<text x="0" y="{y + 14}" fill="currentColor">{escape(name)}</text>'
            f'<rect x="70" y="{y + 3}" width="200" height="14" rx="3" fill="currentColor" opacity=".15"/>'
            f'<rect x="70" y="{y + 3}" width="{200 * full:.1f}" height="14" rx="3" fill="{colour}"/>'
            f'<text x="280" y="{y + 14}" fill="currentColor">{escape(label)}</text>'
        )
    drawing = "".join(lines)
    plot = f'<svg width="520" height="{22 * len(measured)}" font-size="13" font-family="sans-serif">{drawing}</svg>'
    return stack(f"<b>{escape(title)}</b>", f"<div>{plot}</div>", note(remark))


def progress_bar(title: str, done: float | None, total: float | None, label: str) -> str:
    """Return a progress bar.

    Without a total the browser animates it.
    """
    share = f' max="{total:g}" value="{min(done or 0, total):g}"' if total else ""
    return f'<div>{escape(title)} <progress{share} style="width:20em"></progress> <span>{escape(label)}</span></div>'
