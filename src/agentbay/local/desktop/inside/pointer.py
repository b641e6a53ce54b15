"""The mouse: move, click, drag and scroll."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from Xlib import X
from Xlib.ext import xtest

from agentbay.local.desktop.inside.refusal import Refused

_BUTTONS = {"left": 1, "middle": 2, "right": 3}
_WHEEL_BUTTONS = {"up": 4, "down": 5, "left": 6, "right": 7}
_DRAG_STEPS = 20  # movements between the ends: programs take a single jump for no drag
_MAX_NOTCHES = 1000


class Pointer:
    """Moves the mouse pointer of a display and presses its buttons.

    Args:
        wait_for_program: Waits until the program in focus has handled what was done so far.
    """

    def __init__(self, display: Any, wait_for_program: Callable[[], None]) -> None:
        self._display, self._wait_for_program = display, wait_for_program

    def screen_size(self) -> tuple[int, int]:
        """Return width and height of the screen in pixels."""
        geometry = self._display.screen().root.get_geometry()
        return geometry.width, geometry.height

    def position(self) -> dict[str, int]:
        """Return where the pointer is."""
        found = self._display.screen().root.query_pointer()
        return {"x": found.root_x, "y": found.root_y}

    def move(self, x: int, y: int) -> None:
        """Move to a point."""
        self._check(x, y)
        self._move(x, y)
        self._display.sync()

    def click(self, x: int, y: int, button: str) -> None:
        """Click at a point, twice for `double_left`."""
        self._check(x, y)
        times, number = (2, 1) if button == "double_left" else (1, _number_of(button, _BUTTONS, "button"))
        self._move(x, y)
        self._press(number, times)

    def scroll(self, x: int, y: int, direction: str, amount: int) -> None:
        """Turn the wheel at a point by so many notches."""
        self._check(x, y)
        number = _number_of(direction, _WHEEL_BUTTONS, "direction")
        if not 1 <= amount <= _MAX_NOTCHES:
            raise Refused(f"amount must be 1 to {_MAX_NOTCHES} notches, not {amount}")
        self._move(x, y)
        self._press(number, amount)

    def drag(self, from_x: int, from_y: int, to_x: int, to_y: int, button: str) -> None:
        """Press a button at one point and release it at another."""
        self._check(from_x, from_y)
        self._check(to_x, to_y)
        number = _number_of(button, _BUTTONS, "button")
        self._move(from_x, from_y)
        xtest.fake_input(self._display, X.ButtonPress, number)
        for step in range(1, _DRAG_STEPS + 1):
            x = from_x + (to_x - from_x) * step // _DRAG_STEPS
            y = from_y + (to_y - from_y) * step // _DRAG_STEPS
            self._move(x, y)
            self._display.sync()
            if step == _DRAG_STEPS // 2:
                # A busy program takes the movements that it finds waiting for a single jump.
                self._wait_for_program()
        xtest.fake_input(self._display, X.ButtonRelease, number)
        self._display.sync()

    def _move(self, x: int, y: int) -> None:
        xtest.fake_input(self._display, X.MotionNotify, x=x, y=y)

    def _press(self, number: int, times: int) -> None:
        for _ in range(times):
            xtest.fake_input(self._display, X.ButtonPress, number)
            xtest.fake_input(self._display, X.ButtonRelease, number)
        self._display.sync()

    def _check(self, x: int, y: int) -> None:
        width, height = self.screen_size()
        if not (0 <= x < width and 0 <= y < height):
            raise Refused(f"the point ({x}, {y}) is not on the screen, which is {width} x {height} pixels")


def _number_of(name: str, numbers: dict[str, int], what: str) -> int:
    if name not in numbers:
        raise Refused(f"{what} must be one of {', '.join(numbers)}, not {name!r:.80}")
    return numbers[name]
