"""Text with the control sequences of terminals in it."""

from __future__ import annotations

import re
from html import escape

_ANSI_SEQUENCE = re.compile(r"\x1b(?:\[([0-9;]*)m|\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_COLOURS = ("#808080", "#d9534f", "#3f9b52", "#b58900", "#4c8dd6", "#b05fb0", "#2a9d9d", "inherit")  # black to white
_STYLES = {1: "font-weight:bold", 2: "opacity:.7", 3: "font-style:italic", 4: "text-decoration:underline"}
_RESET_CODES = {22: ("1", "2"), 23: ("3",), 24: ("4",), 39: ("colour",)}


def strip_ansi(text: str) -> str:
    """Leave the sequences out, and what a line has written over."""
    return _apply_carriage_returns(_ANSI_SEQUENCE.sub("", text))


def ansi_to_html(text: str) -> str:
    """Turn the sequences for colours and weight into HTML, leave the others out, and escape the rest."""
    out, style = [], dict[str, str]()
    parts = _ANSI_SEQUENCE.split(_apply_carriage_returns(text))  # text and the codes of the sequence after it, in turn
    for piece, codes in zip(parts[::2], [*parts[1::2], None], strict=True):
        if piece:
            said = escape(piece)
            out.append(f'<span style="{";".join(style.values())}">{said}</span>' if style else said)
        if codes is not None:
            style = _apply_codes(style, [int(code or 0) for code in codes.split(";")])
    return "".join(out)


def _apply_carriage_returns(text: str) -> str:
    """Leave out what each line has written over."""
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def _apply_codes(style: dict[str, str], codes: list[int]) -> dict[str, str]:
    if codes[0] == 38:  # one of 256 colours, or any: it may not be legible on the page
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
