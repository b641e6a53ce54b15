"""Import paths of the published client, kept for programs that use them.

New programs import the same names from `agentbay`.
"""

from importlib import import_module
from typing import Any


def get_public(name: str) -> Any:
    """Return the public name of `agentbay`, or raise AttributeError."""
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(import_module("agentbay"), name)
