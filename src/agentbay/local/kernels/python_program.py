"""The program of a Python kernel, as one text.

It runs in processes that cannot import this package.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

_PACKAGE = "agentbay.local.kernels.programs"
# in the order of their imports
_MODULES = ("error_text", "service_connection", "mime_bundle", "cell_loop", "memory_limit", "python_kernel")
_PROGRAM = """\
import sys, types
modules = {{}}
for name, source in {sources!r}:
    modules[name] = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, f"<{{name}}>", "exec"), vars(modules[name]))
for name in modules:
    del sys.modules[name]  # the user may have a package of that name, or want to install ours
modules[name].main()
"""


@cache
def python_program() -> bytes:
    """Return the program, which runs until the service disconnects."""
    folder = Path(__file__).with_name("programs")
    sources = [(f"{_PACKAGE}.{name}", (folder / f"{name}.py").read_text(encoding="utf-8")) for name in _MODULES]
    return _PROGRAM.format(sources=sources).encode()
