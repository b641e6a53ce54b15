"""What a Python kernel tells of an error, in bounds."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

MAX_CHARS = 256 << 10  # kept of the message of an error, and of its traceback
_FIRST_FRAMES, _LAST_FRAMES = 25, 75  # kept of a traceback: IPython takes milliseconds for each
_MAX_CHAIN = 10  # errors that are shown of those that caused each other


def make_message(error: BaseException) -> str:
    """Return the message of an error of any class."""
    try:
        return shorten(escape_surrogates(str(error)))
    except Exception as another:  # noqa: BLE001 - the code's own class, which may do anything
        return f"<its message cannot be told: {type(another).__name__}>"


def shorten(text: str) -> str:
    """Cut the middle out of a long text."""
    if len(text) <= MAX_CHARS:
        return text
    half = MAX_CHARS // 2
    return f"{text[:half]}\n[cut: {len(text) - 2 * half} characters]\n{text[-half:]}"


def escape_surrogates(text: str) -> str:
    """Replace lone surrogates, which are no Unicode, by escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def cut_tracebacks(error: BaseException, hidden: Mapping[str, Any]) -> str:
    """Cut the middle out of long tracebacks, of an error and its causes.

    Args:
        error: The error, whose traceback is changed.
        hidden: Global variables of a module whose frames are not shown at the end.

    Returns:
        What was cut, or "".
    """
    cut_frames, shown = 0, error
    for number in range(1, _MAX_CHAIN + 1):
        frames = _frames(shown.__traceback__)
        kept = list(frames)
        while len(kept) > 1 and kept[-1].tb_frame.f_globals is hidden:
            del kept[-1]
        if len(kept) > _FIRST_FRAMES + _LAST_FRAMES:
            cut_frames += len(kept) - _FIRST_FRAMES - _LAST_FRAMES
            del kept[_FIRST_FRAMES:-_LAST_FRAMES]
        if len(kept) < len(frames):
            shown.__traceback__ = _joined(kept)
        earlier = shown.__context__ if shown.__cause__ is None else shown.__cause__
        if earlier is None:
            break
        if number == _MAX_CHAIN:
            shown.__cause__ = shown.__context__ = None
            return f"[cut: {cut_frames} frames in the middle, and all errors before the last {_MAX_CHAIN}]\n"
        shown = earlier
    return f"[cut: {cut_frames} frames in the middle]\n" if cut_frames else ""


def _frames(traceback: TracebackType | None) -> list[TracebackType]:
    frames = []
    while traceback is not None:
        frames.append(traceback)
        traceback = traceback.tb_next
    return frames


def _joined(frames: list[TracebackType]) -> TracebackType | None:
    following = None
    for frame in reversed(frames):
        following = TracebackType(following, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return following
