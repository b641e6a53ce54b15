"""The end of an output that is kept in pieces."""

from __future__ import annotations

from collections.abc import Reversible
from typing import AnyStr


def last_pieces(pieces: Reversible[AnyStr], size: int) -> list[AnyStr]:
    """Return the last pieces, in order, with at least `size` characters or bytes together."""
    found: list[AnyStr] = []
    for piece in reversed(pieces):
        if size <= 0:
            break
        found.append(piece)
        size -= len(piece)
    return found[::-1]
