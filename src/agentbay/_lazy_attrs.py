"""attrs classes whose methods are made at their first use.

attrs writes and compiles source for the methods of each class. The package has hundreds of classes and a program uses
a few of them, so making all at import would be most of what a program waits for at its start.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import RLock
from typing import TYPE_CHECKING, Any

import attrs

_REPLACED_NAMES = ("__init__", "__repr__", "__eq__", "__attrs_attrs__")  # by what attrs makes
_REMOVED_NAMES = ("__hash__", "__match_args__")  # attrs makes these only for a class without them

_lock = RLock()  # held while a class and its bases are completed
if hasattr(os, "register_at_fork"):  # a child must not find it held by a thread that only its parent has
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class Postponed:
    """Stands for an attribute that attrs makes once it is looked at."""

    def __init__(self, name: str, cls: type, options: dict[str, Any]) -> None:
        self._name, self._cls, self._options = name, cls, options
        self._decorator: Callable[[Any], Any] | None = None

    def __get__(self, instance: object, owner: type) -> Any:
        with _lock:
            if self._cls.__dict__.get(self._name) is self:  # else another thread has completed it meanwhile
                _complete(self._cls, self._options)
        made = self._cls.__dict__.get(self._name, self)
        if made is self:  # attrs has made none
            return getattr(owner if instance is None else instance, self._name)
        # As a function itself binds: `inspect.signature` asks it to bind the class.
        return made.__get__(instance, owner) if hasattr(made, "__get__") else made

    def decorate(self, decorator: Callable[[Any], Any]) -> None:
        """Apply a decorator to the method once it is made."""
        self._decorator = decorator

    def finish(self) -> None:
        """Decorate what attrs has made."""
        if self._decorator is not None:
            setattr(self._cls, self._name, self._decorator(getattr(self._cls, self._name)))


def _complete(cls: type, options: dict[str, Any]) -> None:
    for base in cls.__mro__[1:]:  # attrs reads attributes and methods of the bases
        getattr(base, "__attrs_attrs__", None)
    found = {name: member for name, member in vars(cls).items() if isinstance(member, Postponed)}
    for name in found.keys() & _REMOVED_NAMES:
        delattr(cls, name)
    # Told which methods to make, since attrs would take the stand-ins for methods of the class's own.
    options |= {name.strip("_"): name in found for name in ("__init__", "__repr__", "__eq__")}
    attrs.define(**options)(cls)
    found["__init__"].finish()


def _postpone(cls: type, options: dict[str, Any]) -> type:
    for name in (*_REPLACED_NAMES, *_REMOVED_NAMES):
        if name not in vars(cls):
            setattr(cls, name, Postponed(name, cls, options))
    return cls


def _define(cls: type | None = None, **options: Any) -> Any:
    """Do what `attrs.define` does, for a class with a dictionary at its first use."""
    if options.get("slots") is not False or "init" in options:  # attrs makes a second class, or an instance needs none
        return attrs.define(cls, **options)
    return _postpone(cls, options) if cls is not None else lambda decorated: _postpone(decorated, options)


# Type checkers know these by their names in attrs.
if TYPE_CHECKING:
    from attrs import define as define, field as field
else:
    define, field = _define, attrs.field
