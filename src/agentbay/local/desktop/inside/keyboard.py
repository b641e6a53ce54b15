"""The keyboard: text in any script, and keys that are pressed together or held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from Xlib import XK, X
from Xlib.ext import xtest

from agentbay.local.desktop.inside.refusal import Refused

_UNICODE_KEYSYMS = 0x01000000  # keysyms of characters begin here, except those of Latin-1
_MAX_CHARACTERS = 100_000  # in one call; some thousand are typed in a second
_SYNC_EVERY = 50  # characters
_MULTIMEDIA_KEYSYMS = range(0x10080000, 0x10090000)  # of keys that a program can do without
_CONTROL_KEYS = {"\n": "Return", "\t": "Tab", "\b": "BackSpace", "\x1b": "Escape", "\x7f": "Delete"}
_KEY_NAMES = {
    "Ctrl": "Control_L", "Alt": "Alt_L", "Shift": "Shift_L", "Win": "Super_L", "Meta": "Super_L", "Super": "Super_L",
    "Command": "Super_L", "Enter": "Return", "Backspace": "BackSpace", "PageUp": "Prior", "PageDown": "Next",
    "Space": "space", "CapsLock": "Caps_Lock", "NumLock": "Num_Lock", "ScrollLock": "Scroll_Lock",
    "PrintScreen": "Print", "ArrowUp": "Up", "ArrowDown": "Down", "ArrowLeft": "Left", "ArrowRight": "Right",
}  # fmt: skip


class Keyboard:
    """Presses the keys of a display.

    A character that no key has gets a spare key, which then keeps it as long as possible: a program reads the mapping
    of keys only when it gets to the key that was pressed.

    Args:
        wait_for_program: Waits until the program in focus has handled what was typed so far.
    """

    def __init__(self, display: Any, wait_for_program: Callable[[], None]) -> None:
        XK.load_keysym_group("xf86")
        self._display, self._wait_for_program = display, wait_for_program
        self._held: set[int] = set()  # key codes
        self._lent: dict[int, int] = {}  # spare key codes and their keysyms, in the order in which they were lent
        self._keys: dict[int, tuple[int, bool]] = {}  # key codes by keysym, and whether Shift is needed
        self._spare: list[int] = []

    def type(self, text: str) -> None:
        """Type a text.

        Raises:
            Refused: A character cannot be typed.
        """
        if len(text) > _MAX_CHARACTERS:
            raise Refused(f"text must have at most {_MAX_CHARACTERS} characters, not {len(text)}; write a file instead")
        keysyms = [_keysym_of(character) for character in text.replace("\r\n", "\n").replace("\r", "\n")]
        self._read_mapping()
        # With Caps Lock on, letters would come out in the wrong case.
        caps_lock = self._display.screen().root.query_pointer().mask & X.LockMask
        if caps_lock:
            self._tap(XK.XK_Caps_Lock)
        while keysyms:
            keysyms = keysyms[self._type_some(keysyms) :]
        if caps_lock:
            self._tap(XK.XK_Caps_Lock)
        self._display.sync()

    def press(self, names: list[str], *, hold: bool) -> None:
        """Press keys together, in this order.

        Raises:
            Refused: There is no key of such a name.
        """
        pressed = [code for code in self._codes(names) if code not in self._held]
        for code in pressed:
            xtest.fake_input(self._display, X.KeyPress, code)
        if hold:
            self._held.update(pressed)
        else:
            self._release(reversed(pressed))
        self._display.sync()

    def release(self, names: list[str]) -> None:
        """Release keys that are held down."""
        codes = self._codes(names)
        self._release(codes)
        self._held.difference_update(codes)
        self._display.sync()

    def _codes(self, names: list[str]) -> list[int]:
        if not names:
            raise Refused("keys must not be empty")
        keysyms = [_keysym_of_name(name) for name in names]
        self._read_mapping()
        self._lend(keysyms)
        codes: list[int] = []
        for keysym in keysyms:
            code, shifted = self._keys[keysym]
            if shifted:
                codes.append(self._keys[XK.XK_Shift_L][0])
            codes.append(code)
        return list(dict.fromkeys(codes))

    def _release(self, codes: Any) -> None:
        for code in codes:
            xtest.fake_input(self._display, X.KeyRelease, code)

    def _type_some(self, keysyms: list[int]) -> int:
        """Type as many characters as there are spare keys for, and return their number."""
        missing: set[int] = set()
        count = 0
        for keysym in keysyms:
            if keysym not in self._keys and len(missing | {keysym}) > len(self._spare):
                break
            if keysym not in self._keys:
                missing.add(keysym)
            count += 1
        self._lend(keysyms[:count])
        for position, keysym in enumerate(keysyms[:count], 1):
            self._tap(keysym)
            if position % _SYNC_EVERY == 0:
                self._display.sync()
        return count

    def _tap(self, keysym: int) -> None:
        code, shifted = self._keys[keysym]
        shift = self._keys[XK.XK_Shift_L][0]
        shifted = shifted and shift not in self._held
        if shifted:
            xtest.fake_input(self._display, X.KeyPress, shift)
        xtest.fake_input(self._display, X.KeyPress, code)
        xtest.fake_input(self._display, X.KeyRelease, code)
        if shifted:
            xtest.fake_input(self._display, X.KeyRelease, shift)

    def _read_mapping(self) -> None:
        """Read which key has which keysyms, since any program may have changed that."""
        first, last = self._display.display.info.min_keycode, self._display.display.info.max_keycode
        rows = self._display.get_keyboard_mapping(first, last - first + 1)
        self._keys, unused = {}, []
        for code, row in enumerate(rows, first):
            # Further levels need AltGr or another layout: their characters get a key of their own.
            for keysym, shifted in reversed(list(zip(row, (False, True), strict=False))):
                if keysym and (keysym not in self._keys or not shifted):
                    self._keys[keysym] = (code, shifted)
            if not any(keysym not in _MULTIMEDIA_KEYSYMS for keysym in row if keysym):
                unused.append(code)
        self._lent = {code: keysym for code, keysym in self._lent.items() if self._keys.get(keysym) == (code, False)}
        self._spare = [*unused, *self._lent]  # in the order in which they are lent next

    def _lend(self, keysyms: list[int]) -> None:
        """Give spare keys to those keysyms that no key has."""
        wanted = set(keysyms)
        missing = [keysym for keysym in dict.fromkeys(keysyms) if keysym not in self._keys]
        codes = [code for code in self._spare if self._lent.get(code) not in wanted]
        if len(missing) > len(codes):
            raise Refused(f"the keyboard has no room for {len(missing)} more keys")
        taken = codes[: len(missing)]
        if any(code in self._lent for code in taken):
            self._display.sync()
            self._wait_for_program()
        for code, keysym in zip(taken, missing, strict=True):
            if code in self._lent:
                del self._keys[self._lent.pop(code)]
            self._display.change_keyboard_mapping(code, [[keysym] * 4])
            self._lent[code] = keysym
            self._keys[keysym] = (code, False)
            self._spare.remove(code)
            self._spare.append(code)
        if missing:
            self._display.sync()
            # Some libraries read a changed mapping late, and would take the key for what it was.
            self._wait_for_program()


def _keysym_of(character: str) -> int:
    if name := _CONTROL_KEYS.get(character):
        return int(XK.string_to_keysym(name))
    code = ord(character)
    if code < 0x20 or 0x80 <= code < 0xA0 or 0xD800 <= code < 0xE000:
        raise Refused(f"the character U+{code:04X} cannot be typed")
    return code if code < 0x100 else _UNICODE_KEYSYMS + code


def _keysym_of_name(name: str) -> int:
    if len(name) == 1:
        return _keysym_of(name)
    keysym = int(XK.string_to_keysym(_KEY_NAMES.get(name, name)))
    if not keysym:
        raise Refused(
            f"there is no key {name!r:.80}; keys are characters, names such as Ctrl, F5, Enter, or keysyms of X"
        )
    return keysym
