"""The output of the steps of a build, which clients poll."""

from __future__ import annotations

_MAX_BYTES = 16 << 20
_MAX_ANSWER_BYTES = 256 << 10
_CUT = b"\n(The rest of the output is left out.)\n"


class JobOutput:
    """Output that grows until a limit, and is read piece by piece."""

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return len(self._data)

    def clear(self) -> None:
        """Discard the output."""
        self._data.clear()

    def write(self, data: bytes) -> None:
        """Add to it, up to the limit."""
        room = _MAX_BYTES - len(self._data)
        if room <= 0:
            return
        self._data += data[:room]
        if len(data) >= room:
            self._data += _CUT

    def read(self, start: int, *, is_done: bool) -> tuple[str, int]:
        """Return text from a byte on, and where it ends.

        A character that is not complete is left for the next time, unless nothing more comes.
        """
        start = max(start, 0)
        piece = bytes(self._data[start : start + _MAX_ANSWER_BYTES])
        at_end = is_done and start + len(piece) >= len(self._data)
        cut = 0 if at_end else _incomplete_bytes(piece)
        text = piece[: len(piece) - cut].decode("utf-8", "replace")
        return text, start + len(piece) - cut


def _incomplete_bytes(data: bytes) -> int:
    """Return the number of bytes at the end that begin an incomplete character."""
    for count in range(1, min(4, len(data) + 1)):
        byte = data[-count]
        if byte & 0xC0 == 0x80:
            continue
        length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return count if length > count else 0
    return 0
