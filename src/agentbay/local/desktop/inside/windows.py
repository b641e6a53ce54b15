"""The windows of a display, through a window manager that follows EWMH."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from Xlib import X, Xutil
from Xlib.error import XError
from Xlib.ext import res
from Xlib.protocol import event

from agentbay.local.desktop.inside import processes
from agentbay.local.desktop.inside.refusal import Refused

_WAIT_SECONDS = 3.0  # for the window manager to do what it was asked
_POLL_SECONDS = 0.005
_SOURCE_PAGER = 2  # EWMH: the request comes from the user, so that it is not refused as stealing the focus
_REMOVE, _ADD = 0, 1  # of _NET_WM_STATE
_MOVERESIZE_SIZE = 1 << 10 | 1 << 11  # of _NET_MOVERESIZE_WINDOW: width and height are given
_MAXIMIZED = ("_NET_WM_STATE_MAXIMIZED_VERT", "_NET_WM_STATE_MAXIMIZED_HORZ")
_FULLSCREEN, _HIDDEN = ("_NET_WM_STATE_FULLSCREEN",), "_NET_WM_STATE_HIDDEN"


class Windows:
    """Lists and changes the windows that the window manager manages."""

    def __init__(self, display: Any) -> None:
        self._display = display
        self._root = display.screen().root
        self._kept_in_focus = 0  # the window that keeps the input focus; 0 outside of focus mode
        self._root.change_attributes(event_mask=X.PropertyChangeMask)
        display.set_error_handler(lambda *_: None)  # a window may be closed at any time by its program

    def wait_for_manager(self) -> None:
        """Return when a window manager is there."""
        self._wait(lambda: bool(self._values(self._root, "_NET_SUPPORTING_WM_CHECK")), "the window manager starts")

    def describe_all(self) -> list[dict[str, Any]]:
        """Describe every window, the oldest first, with its dialogs."""
        found = self._all()
        for number, window in found.items():
            parent = self._dialog_owner(number)
            if parent in found:
                found[parent]["child_windows"].append({**window, "child_windows": []})
        return list(found.values())

    def active(self) -> dict[str, Any]:
        """Describe the window that has the input focus.

        Raises:
            Refused: No window has it.
        """
        window = self._describe(self._active())
        if window is None:
            raise Refused("no window has the input focus")
        return window

    def visible_pids(self) -> list[int]:
        """Return the processes that have a window that is not minimized."""
        shown = [window["pid"] for number, window in self._all().items() if _HIDDEN not in self._states(number)]
        return list(dict.fromkeys(pid for pid in shown if pid))

    def activate(self, number: int) -> None:
        """Raise a window and give it the input focus."""
        self._find(number)
        self._send(number, "_NET_ACTIVE_WINDOW", _SOURCE_PAGER, X.CurrentTime)
        self._wait(lambda: self._active() == number, f"window {number} gets the input focus")

    def close(self, number: int) -> None:
        """Ask a window to close, and wait until it has."""
        self._find(number)
        self._send(number, "_NET_CLOSE_WINDOW", X.CurrentTime, _SOURCE_PAGER)
        asked = f"window {number} closes, whose program may ask something first"
        self._wait(lambda: number not in self._numbers(), asked)

    def maximize(self, number: int) -> None:
        """Let a window fill the screen, except for the bar."""
        self._show(number)
        self._change_state(number, _REMOVE, _FULLSCREEN)
        self._change_state(number, _ADD, _MAXIMIZED)

    def fullscreen(self, number: int) -> None:
        """Let a window cover the whole screen."""
        self._show(number)
        self._change_state(number, _ADD, _FULLSCREEN)

    def minimize(self, number: int) -> None:
        """Hide a window until it is restored or activated."""
        self._find(number)
        self._send(number, "WM_CHANGE_STATE", Xutil.IconicState)
        self._wait(lambda: _HIDDEN in self._states(number), f"window {number} is minimized")

    def restore(self, number: int) -> None:
        """Show a window as it was before it was minimized, maximized or fullscreen."""
        self._show(number)
        self._change_state(number, _REMOVE, _FULLSCREEN)
        self._change_state(number, _REMOVE, _MAXIMIZED)

    def resize(self, number: int, width: int, height: int) -> None:
        """Set the size of a window, which its program may round."""
        screen = self._root.get_geometry()
        if not (1 <= width <= screen.width and 1 <= height <= screen.height):
            limit = f"{screen.width} x {screen.height}"
            raise Refused(f"width and height must fit the screen of {limit} pixels, not {width} x {height}")
        self.restore(number)
        before = self._size(number)
        if before == (width, height):
            return
        self._send(number, "_NET_MOVERESIZE_WINDOW", _MOVERESIZE_SIZE, 0, 0, width, height)
        self._wait(lambda: self._size(number) != before, f"window {number} changes its size")

    def set_focus_mode(self, on: bool) -> None:
        """Keep the input focus where it is, or let it go."""
        self._kept_in_focus = self._active() if on else 0

    def wait_for_program(self) -> None:
        """Return when the program in focus has handled all events so far.

        That is guessed, and takes some seconds at most.
        """
        number = self._active()
        if number in self._numbers():
            processes.wait_until_idle(self._pid(number))

    def on_event(self, received: Any) -> None:
        """In focus mode, give the input focus back to the window that had it."""
        if received.type != X.PropertyNotify or received.atom != self._atom("_NET_ACTIVE_WINDOW"):
            return
        kept = self._kept_in_focus
        if kept and self._active() != kept:
            if kept in self._numbers():
                self._send(kept, "_NET_ACTIVE_WINDOW", _SOURCE_PAGER, X.CurrentTime)
            else:
                self._kept_in_focus = 0

    def _all(self) -> dict[int, dict[str, Any]]:
        described = {number: self._describe(number) for number in self._numbers()}
        return {number: window for number, window in described.items() if window is not None}

    def _describe(self, number: int) -> dict[str, Any] | None:
        """Describe a window, or return None if it is gone."""
        if number not in self._numbers():
            return None
        window = self._display.create_resource_object("window", number)
        try:
            geometry = window.get_geometry()
            corner = self._root.translate_coords(window, 0, 0)
            pid = self._pid(number)
        except XError:
            # The window was closed while it was asked.
            return None
        return {
            "window_id": number,
            "window_title": self._title(window),
            "absolute_upper_left_x": corner.x,
            "absolute_upper_left_y": corner.y,
            "width": geometry.width,
            "height": geometry.height,
            "pid": pid,
            "pname": processes.name_of(pid),
            "child_windows": [],
        }

    def _title(self, window: Any) -> str:
        for name in ("_NET_WM_NAME", "WM_NAME"):
            found = self._property(window, name)
            if found is not None:
                value = found.value
                return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        return ""

    def _pid(self, number: int) -> int:
        # The X server knows which process is connected; what a program says of itself may be another namespace's.
        asked = [{"client": number, "mask": res.LocalClientPIDMask}]
        for found in self._display.res_query_client_ids(asked).ids:
            if found.value:
                return int(found.value[0])
        return 0

    def _dialog_owner(self, number: int) -> int:
        values = self._values(self._display.create_resource_object("window", number), "WM_TRANSIENT_FOR")
        return values[0] if values else 0

    def _size(self, number: int) -> tuple[int, int]:
        window = self._describe(number)
        return (window["width"], window["height"]) if window else (0, 0)

    def _find(self, number: int) -> None:
        if number not in self._numbers():
            raise Refused(f"there is no window {number}; list_root_windows lists those that there are")

    def _show(self, number: int) -> None:
        self._find(number)
        if _HIDDEN in self._states(number):
            self.activate(number)

    def _change_state(self, number: int, action: int, names: Sequence[str]) -> None:
        wanted = action == _ADD
        if all((name in self._states(number)) == wanted for name in names):
            return
        second = self._atom(names[1]) if len(names) > 1 else 0
        self._send(number, "_NET_WM_STATE", action, self._atom(names[0]), second, _SOURCE_PAGER)
        self._wait(
            lambda: all((name in self._states(number)) == wanted for name in names),
            f"window {number} changes its state",
        )

    def _states(self, number: int) -> set[str]:
        atoms = self._values(self._display.create_resource_object("window", number), "_NET_WM_STATE")
        return {self._display.get_atom_name(atom) for atom in atoms}

    def _numbers(self) -> list[int]:
        return self._values(self._root, "_NET_CLIENT_LIST")

    def _active(self) -> int:
        values = self._values(self._root, "_NET_ACTIVE_WINDOW")
        return values[0] if values else 0

    def _values(self, window: Any, name: str) -> list[int]:
        found = self._property(window, name)
        return [] if found is None or isinstance(found.value, bytes) else [int(value) for value in found.value]

    def _property(self, window: Any, name: str) -> Any:
        try:
            return window.get_full_property(self._atom(name), X.AnyPropertyType)
        except XError:
            # The window was closed while it was asked.
            return None

    def _atom(self, name: str) -> int:
        return int(self._display.intern_atom(name))

    def _send(self, number: int, kind: str, *values: int) -> None:
        """Send the window manager a request about a window."""
        message = event.ClientMessage(
            window=self._display.create_resource_object("window", number),
            client_type=self._atom(kind),
            data=(32, [*values, *[0] * (5 - len(values))]),
        )
        self._root.send_event(message, event_mask=X.SubstructureRedirectMask | X.SubstructureNotifyMask)
        self._display.sync()

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _WAIT_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise Refused(f"it took too long until {what}")
            time.sleep(_POLL_SECONDS)
