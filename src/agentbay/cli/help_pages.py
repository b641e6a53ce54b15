"""Imports what draws help pages, without the parts that are not used."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

# Typer imports them for Markdown in help texts, and for tracebacks. They take 40 ms to import.
_UNUSED = {"rich.markdown": "Markdown", "rich.traceback": "Traceback"}


def import_help_pages() -> Any:
    """Import the module that draws help pages and usage errors, and return it."""
    absent = {module: kind for module, kind in _UNUSED.items() if module not in sys.modules}
    sys.modules.update({module: _make_placeholder(module, kind) for module, kind in absent.items()})
    try:
        return import_module("typer.rich_utils")
    finally:
        for module in absent:
            del sys.modules[module]


def _make_placeholder(module: str, kind: str) -> ModuleType:
    """Return a module whose one class imports the real one when it is called."""

    def make(cls: type, *args: Any, **more: Any) -> Any:
        return getattr(import_module(module), kind)(*args, **more)

    placeholder = ModuleType(module)
    setattr(placeholder, kind, type(kind, (), {"__new__": make}))
    return placeholder
