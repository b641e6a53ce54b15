"""Turning a forked kernel into the Python of its sandbox.

The zygote is the Python of the runtime. After the fork, its interpreter and its paths must be those that a new process
of the sandbox's Python environment has, so that code finds what was installed there.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Collection
from typing import NoReturn

from agentbay.local.sandbox.shared.sandbox_config import PYTHON_PATH_FILE

_CUSTOMIZATION_MODULES = ("sitecustomize", "usercustomize")  # Python imports them at its start
_LOADER = "import os; exec(compile(open({fd}, 'rb').read(), '<kernel>', 'exec'))"


def loaded_packages() -> frozenset[str]:
    """Return the top-level names of all modules of this process."""
    return frozenset(name.partition(".")[0] for name in sys.modules)


def replaces_any(prefix: str, loaded: Collection[str]) -> bool:
    """Return whether a Python environment has another version of something that is loaded already."""
    installed = find_installed(prefix)
    path_files = {name for name in _list_packages(prefix) if name.endswith(".pth")}
    return not installed.isdisjoint({*loaded, *_CUSTOMIZATION_MODULES}) or path_files > {PYTHON_PATH_FILE}


def find_installed(prefix: str) -> set[str]:
    """Return the top-level names of what was installed into a Python environment."""
    return {name.partition(".")[0] for name in _list_packages(prefix)}


def start_anew(prefix: str, program: bytes) -> NoReturn:
    """Run the kernel's program anew, by the environment's interpreter, in this process.

    Standard input must be the socket to the service.
    """
    fd = os.memfd_create("kernel", 0)
    os.write(fd, program)
    os.lseek(fd, 0, os.SEEK_SET)
    python = _interpreter(prefix)
    os.execv(python, [python, "-I", "-X", "utf8", "-c", _LOADER.format(fd=fd)])


def adopt(prefix: str) -> None:
    """Give this process the interpreter, the prefix and the search path of an environment."""
    sys.executable = _interpreter(prefix)
    sys.prefix = sys.exec_prefix = prefix
    sysconfig.get_config_vars().update(prefix=prefix, exec_prefix=prefix, base=prefix, platbase=prefix)
    standard_library = os.path.dirname(os.__file__)
    sys.path[:] = [path for path in sys.path if _is_standard(path, standard_library)]
    site.addsitepackages(set(sys.path), [prefix])
    site.PREFIXES[:] = [prefix]
    if "multiprocessing.spawn" in sys.modules:
        sys.modules["multiprocessing.spawn"].set_executable(sys.executable)


def _interpreter(prefix: str) -> str:
    return f"{prefix}/bin/python"


def _list_packages(prefix: str) -> list[str]:
    try:
        return os.listdir(f"{prefix}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages")
    except OSError:  # code has removed it
        return []


def _is_standard(path: str, standard_library: str) -> bool:
    """Return whether an entry of `sys.path` belongs to the standard library."""
    return path == standard_library or os.path.basename(path) == "lib-dynload" or path.endswith(".zip")
