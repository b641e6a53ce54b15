"""Modules from which the published client's documentation imports public names, kept so that such programs run.

Everything is `agentbay`'s own; import it from there.
"""

from importlib import import_module
from typing import Any


def get_public(name: str) -> Any:
    """Return what `agentbay` calls by that name."""
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(import_module("agentbay"), name)
