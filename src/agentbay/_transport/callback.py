"""Telling users: their code must not harm ours."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")
_log = logging.getLogger("agentbay")


def tell(callback: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call a user's callback; what it raises is logged, and harms nothing."""
    try:
        callback(*args, **kwargs)
    except Exception:  # noqa: BLE001  # one of the two broad excepts: nobody knows what a user's code may raise
        _log.exception("A callback raised.")
