"""Modules that the zygote has loaded ahead of need, such as those of pandas.

A kernel gets them when its code imports them, unless its session has installed another version by then. So it imports
what a fresh process would, without the time that a fresh process takes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

_Family = dict[str, ModuleType]  # the modules of one top-level name, by their full names


class PreloadedModules(MetaPathFinder, Loader):
    """Hides preloaded modules from a kernel, and hands them out at their first import.

    Args:
        kept: Names of modules that stay, since the kernel itself uses them.
        find_installed: Returns the top-level names that the session has installed.
    """

    def __init__(self, kept: Collection[str], find_installed: Callable[[], Collection[str]]) -> None:
        self._find_installed = find_installed
        families: dict[str, _Family] = {}
        for name, module in sys.modules.items():
            top = _top_level(name)
            if name not in kept and top not in ("IPython", "agentbay") and top not in sys.stdlib_module_names:
                families.setdefault(top, {})[name] = module
        # The others are no files: Cython keeps there what all compiled modules share.
        self._families = {
            top: family for top, family in families.items() if any(module.__spec__ for module in family.values())
        }
        self._compiled = {top for top, family in self._families.items() if any(map(_is_compiled, family.values()))}
        self._uses = _transitive(
            {top: _used_by(family) & set(self._families) for top, family in self._families.items()}
        )
        self._dropped: set[str] = set()

    def hide(self) -> None:
        """Take the modules out of `sys.modules`."""
        for family in self._families.values():
            for name in family:
                del sys.modules[name]
        sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a hidden module, or None."""
        top = _top_level(fullname)
        module = self._families.get(top, {}).get(fullname)
        if module is None or self._must_be_loaded_anew(top):
            return None
        former = module.__spec__
        spec = ModuleSpec(fullname, self, origin=former.origin if former else None, loader_state=former)
        spec.submodule_search_locations = former.submodule_search_locations if former else None
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the hidden module."""
        return self._families[_top_level(spec.name)][spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Show the module's family and all that it uses, as an import would."""
        assert module.__spec__ is not None
        name, module.__spec__ = module.__spec__.name, module.__spec__.loader_state
        replaced = self._replaced()
        for top in self._uses[_top_level(name)] - replaced:
            for member, hidden in self._families.pop(top, {}).items():
                sys.modules.setdefault(member, hidden)

    def _must_be_loaded_anew(self, top: str) -> bool:
        """Return whether the family is of no use, because something was installed since.

        Raises:
            ImportError: It is of no use, and cannot be loaded a second time in one process.
        """
        stale = self._replaced() & self._uses[top]
        mixed = (stale & self._compiled) - {top}
        if mixed and top in self._compiled - stale:
            raise ImportError(
                f"{top} is loaded already with the {' and '.join(sorted(mixed))} that was replaced since. "
                "Restart this context to use them together.",
                name=top,
            )
        if top in stale or mixed:
            del self._families[top]
            self._dropped.add(top)
            return True
        return False

    def _replaced(self) -> set[str]:
        installed = self._find_installed()
        return self._dropped | {top for top in self._families if top in installed}


def _top_level(name: str) -> str:
    return name.partition(".")[0]


def _is_compiled(module: ModuleType) -> bool:
    return (getattr(module, "__file__", None) or "").endswith(tuple(EXTENSION_SUFFIXES))


def _used_by(family: _Family) -> set[str]:
    """Return the top-level names of what the modules of a family have imported."""
    values: list[Any] = [value for module in family.values() for value in vars(module).values()]
    modules = {value.__name__ for value in values if isinstance(value, ModuleType)}
    owners = {value.__module__ for value in values if isinstance(value, (type, FunctionType, BuiltinFunctionType))}
    return {_top_level(name) for name in modules | owners if isinstance(name, str)}


def _transitive(uses: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return for each name all that it uses, directly or not, and itself."""
    found = {name: {name, *used} for name, used in uses.items()}
    grown = True
    while grown:
        grown = False
        for reached in found.values():
            further = set().union(*(found[name] for name in reached))
            grown = grown or not further <= reached
            reached |= further
    return found
