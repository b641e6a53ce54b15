"""The virtual environment of a sandbox, over the Python of the runtime.

Commands and kernels run its interpreter, so what one installs the others import. Packages of the runtime are visible in
it; those that a sandbox installs come before them, since Python searches the environment's own directory first.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from agentbay.local.sandbox.shared.sandbox_config import PYTHON_PATH_FILE, BindMountConfig, PythonLayout

_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
_PREFIX_PARTS = ("bin", "include", "lib", "lib64", "pyvenv.cfg", "share")
_PACKAGE_DIRECTORY_NAMES = ("site-packages", "dist-packages")
_LINKED_PIP = "../../pip"  # a directory of links, as a path file of the environment has it
# of an image with its own Python
EMPTY: PythonLayout = {"directories": [], "links": {}, "files": {}, "programs": {}}
_PIP_NAMES = ("pip", "pip3", f"pip{sys.version_info.major}.{sys.version_info.minor}")
_PIP_SCRIPT = """\
#!{python}
import sys
try:
    from pip._internal.cli.main import main
except ModuleNotFoundError:
    sys.exit("The Python of the runtime has no pip. Install pip there: python -m ensurepip, or uv pip install pip")
sys.exit(main())
"""


@functools.cache
def interpreter_mounts() -> list[BindMountConfig]:
    """Return mounts of this Python and its packages where they lie outside /usr.

    Only parts of its prefix are shown: the prefix may be the user's project.
    """
    prefixes = [Path(prefix) for prefix in dict.fromkeys([*_base_prefixes(), sys.prefix])]
    shown = [prefix / part for prefix in prefixes for part in _PREFIX_PARTS]
    for directory in map(Path, package_directories()):
        if not any(directory.is_relative_to(part) for part in shown):
            shown.append(directory)
    return [
        {"source": str(path), "target": str(path), "read_only": True, "nofollow_root": "", "is_program": True}
        for path in shown
        if not path.is_relative_to("/usr") and path.exists()
    ]


@functools.cache
def package_directories() -> list[str]:
    """Return the directories of this process's `sys.path` that hold installed packages."""
    return [path for path in sys.path if os.path.isabs(path) and _holds_packages(Path(path))]


def layout(prefix: str) -> PythonLayout:
    """Return what the environment of a new sandbox consists of.

    Args:
        prefix: The path of the environment as the sandbox sees it.
    """
    packages, linked_pip = f"lib/{_VERSION}/site-packages", _linked_pip()
    pip, *pip_aliases = _PIP_NAMES
    return {
        "directories": ["bin", "lib", f"lib/{_VERSION}", packages, *(["lib/pip"] if linked_pip else [])],
        "links": {
            **{f"bin/{name}": _base_executable() for name in ("python", "python3", _VERSION)},
            **{f"bin/{name}": pip for name in pip_aliases},
            **{f"lib/pip/{part.name}": str(part) for part in linked_pip},
        },
        "files": {"pyvenv.cfg": _settings(), f"{packages}/{PYTHON_PATH_FILE}": _path_file()},
        "programs": {f"bin/{pip}": _PIP_SCRIPT.format(python=f"{prefix}/bin/python")},
    }


@functools.cache
def _base_executable() -> str:
    """Return the interpreter outside of any virtual environment."""
    base: str = getattr(sys, "_base_executable")  # noqa: B009 - a stub of sys lacks it
    return os.path.realpath(base)


def _base_prefixes() -> list[str]:
    """Return the prefix of the interpreter, resolved and as found."""
    return [os.path.dirname(os.path.dirname(_base_executable())), sys.base_prefix]


@functools.cache
def _settings() -> str:
    # pip takes `--user` only where an environment sees the packages of its base
    return f"home = {os.path.dirname(_base_executable())}\ninclude-system-site-packages = true\n"


@functools.cache
def _path_file() -> str:
    """Return a path file that adds the packages that the runtime sees, and pip."""
    lines = [
        "# What the runtime sees, after what is installed here. This environment sees its base's packages only if the",
        "# runtime does. Directories are plain lines, which pip can leave out when it builds in isolation.",
        "import site, sys; site.PREFIXES[:] = [prefix for prefix in site.PREFIXES if prefix == sys.prefix]",
        *package_directories(),
        *_pip_line(),
    ]
    return "".join(f"{line}\n" for line in lines)


def _holds_packages(directory: Path) -> bool:
    try:
        return directory.name in _PACKAGE_DIRECTORY_NAMES or any(directory.glob("*.dist-info"))
    except OSError:  # another user's, as the directory of a program that became an ordinary user
        return False


@functools.cache
def find_pip() -> str | None:
    """Return the directory or the wheel that sandboxes have pip from.

    It is that of the runtime or, where that has none, as in environments of uv, that of its base, or the wheel that
    Python comes with. The wheel is slow, since it is not compiled.
    """
    return next(filter(_has_pip, _places_of_pip()), None)


def _places_of_pip() -> Iterator[str]:
    yield from package_directories()
    yield from site.getsitepackages([sys.base_prefix, sys.base_exec_prefix])
    yield from _bundled_wheels()  # only then, since it takes 10 ms


def _has_pip(place: str) -> bool:
    spec = importlib.machinery.PathFinder.find_spec("pip", [place])
    return spec is not None and spec.origin is not None  # a directory that an uninstall has left has no origin


def _bundled_wheels() -> list[str]:
    spec = importlib.util.find_spec("ensurepip")
    places = [Path(spec.origin).with_name("_bundled")] if spec and spec.origin else []
    places += [Path(place)] if (place := sysconfig.get_config_var("WHEEL_PKG_DIR")) else []
    return [str(wheel) for place in places for wheel in sorted(place.glob("pip-*.whl"))]


def _pip_line() -> list[str]:
    """Return the line of the path file that adds a pip from elsewhere."""
    found = find_pip()
    if found is None or found in package_directories():
        return []
    return [_LINKED_PIP] if _linked_pip() else [found]


@functools.cache
def _linked_pip() -> list[Path]:
    """Return the parts of the base's pip.

    Sandboxes link to them, since they see nothing else of those packages.
    """
    found = find_pip()
    if found is None or found in package_directories() or not os.path.isdir(found):
        return []
    return [Path(found, "pip"), *Path(found).glob("pip-*.dist-info")]
