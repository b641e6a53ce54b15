"""Names of keys, as the `press_keys` tool spells them."""

from __future__ import annotations

from typing import Any

_KEY_NAMES = {
    **dict.fromkeys(("ctrl", "control"), "Ctrl"),
    "alt": "Alt",
    "shift": "Shift",
    **dict.fromkeys(("win", "windows"), "Win"),
    "meta": "Meta",
    "super": "Super",
    **dict.fromkeys(("command", "cmd"), "Command"),
    "tab": "Tab",
    **dict.fromkeys(("enter", "return"), "Enter"),
    **dict.fromkeys(("escape", "esc"), "Escape"),
    "backspace": "Backspace",
    **dict.fromkeys(("delete", "del"), "Delete"),
    **dict.fromkeys(("insert", "ins"), "Insert"),
    "home": "Home",
    "end": "End",
    **dict.fromkeys(("pageup", "pgup"), "PageUp"),
    **dict.fromkeys(("pagedown", "pgdn"), "PageDown"),
    "space": "Space",
    "capslock": "CapsLock",
    "numlock": "NumLock",
    "scrolllock": "ScrollLock",
    **dict.fromkeys(("printscreen", "prtsc"), "PrintScreen"),
    **dict.fromkeys(("pause", "break"), "Pause"),
    **{name.lower(): f"Arrow{name}" for name in ("Up", "Down", "Left", "Right")},
    **{f"arrow{name.lower()}": f"Arrow{name}" for name in ("Up", "Down", "Left", "Right")},
    **{f"f{number}": f"F{number}" for number in range(1, 25)},
    "minus": "-",
    "equal": "=",
    "leftbracket": "[",
    "rightbracket": "]",
    "backslash": "\\",
    "semicolon": ";",
    "quote": "'",
    "comma": ",",
    "period": ".",
    "slash": "/",
    "backtick": "`",
}


def normalize_key(key: Any) -> Any:
    """Return a key's name in the tool's spelling: `ctrl` -> `Ctrl`, `A` -> `a`.

    Anything else comes back unchanged.
    """
    if not isinstance(key, str):
        return key
    if len(key) == 1 and key.isalpha():
        return key.lower()
    return _KEY_NAMES.get(key.lower(), key)


def normalize_arguments(tool: str, args: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments, with the keys of `press_keys` in the tool's spelling."""
    if tool != "press_keys" or not isinstance(args.get("keys"), list):
        return args
    return {**args, "keys": [normalize_key(key) for key in args["keys"]]}
