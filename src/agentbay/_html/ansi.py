"""Terminal output: ANSI escape sequences and carriage returns."""

from __future__ import annotations

import re
from html import escape

_ANSI_SEQUENCE = re.compile(r"\x1b(?:\[([0-9;]*)m|\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_COLOURS = ("#808080", "#d9534f", "#3f9b52", "#b58900", "#4c8dd6", "#b05fb0", "#2a9d9d", "inherit")  # black to white
_STYLES = {1: "font-weight:bold", 2: "opacity:.7", 3: "font-style:italic", 4: "text-decoration:underline"}
_RESET_CODES = {22: ("1", "2"), 23: ("3",), 24: ("4",), 39: ("colour",)}


def strip_ansi(text: str) -> str:
    """Remove ANSI sequences and overwritten text."""
    return _apply_carriage_returns(_ANSI_SEQUENCE.sub("", text))


def ansi_to_html(text: str) -> str:
    """Escape text as HTML, with ANSI colours and styles as CSS.

    Other sequences are removed.
    """
    out, style = [], dict[str, str]()
    parts = _ANSI_SEQUENCE.split(_apply_carriage_returns(text))  # text and the codes of the sequence after it, in turn
    for piece, codes in zip(parts[::2], [*parts[1::2], None], strict=True):
        if piece:
            escaped = escape(piece)
            out.append(f'<span style="{";".join(style.values())}">{escaped}</span>' if style else escaped)
        if codes is not None:
            style = _apply_codes(style, [int(code or 0) for code in codes.split(";")])
    return "".join(out)


def _apply_carriage_returns(text: str) -> str:
    """Keep of each line what follows its last carriage return."""
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def _apply_codes(style: dict[str, str], codes: list[int]) -> dict[str, str]:
    if codes[0] == 38:  # 256 or true colours: they may be illegible on a light or dark notebook
        return style
    for code in codes:
        if code == 0:
            style = {}
        elif code in _STYLES:
            style = {**style, str(code): _STYLES[code]}
        elif 30 <= code <= 37 or 90 <= code <= 97:
            style = {**style, "colour": f"color:{_COLOURS[code % 10]}"}
        elif code in _RESET_CODES:
            style = {name: value for name, value in style.items() if name not in _RESET_CODES[code]}
    return style
