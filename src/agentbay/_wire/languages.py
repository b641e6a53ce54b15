"""Names of programming languages, understood alike by the client and the local runtime."""

from __future__ import annotations

_ALIASES = {"py": "python", "python3": "python", "js": "javascript", "node": "javascript", "nodejs": "javascript"}


def canonical_language(name: str) -> str:
    """Return the name that an alias stands for: `JS` -> `javascript`.

    A name that is no alias comes back in lower case: only the service knows which languages it can run.
    """
    plain = name.strip().lower()
    return _ALIASES.get(plain, plain)
