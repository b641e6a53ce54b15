"""The parts of uvicorn that serve, imported without its command line and its supervisors.

Those bring click, multiprocessing and signal handling, and take most of the time of its import.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uvicorn.config import Config as Config
    from uvicorn.protocols.http.httptools_impl import (
        HttpToolsProtocol as HttpProtocol,
        RequestResponseCycle as RequestResponseCycle,
    )
    from uvicorn.server import Server as Server
else:
    _COMMAND_LINE = "uvicorn.main"
    _NAMES = ("Server", "main", "run")  # which the package itself takes from there

    def _import_later(name: str) -> Any:
        if name not in _NAMES:
            raise AttributeError(f"module 'uvicorn' has no attribute {name!r}")
        return getattr(__import__(_COMMAND_LINE, fromlist=[name]), name)

    if "uvicorn" in sys.modules:
        import uvicorn
    else:
        placeholder = sys.modules[_COMMAND_LINE] = ModuleType(_COMMAND_LINE)
        vars(placeholder).update(dict.fromkeys(_NAMES))
        try:
            import uvicorn
        finally:
            del sys.modules[_COMMAND_LINE]
        for _name in _NAMES:
            delattr(uvicorn, _name)
        uvicorn.__getattr__ = _import_later

    from uvicorn.config import Config
    from uvicorn.server import Server

    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as HttpProtocol
    except ImportError:  # httptools has no wheel for this Python
        from uvicorn.protocols.http.h11_impl import H11Protocol as HttpProtocol

__all__ = ["Config", "HttpProtocol", "Server"]
