"""Small packages, made without a build tool, that tests install without a network."""

from __future__ import annotations

import zipfile
from pathlib import Path

# Install from the folder `wheels` only, and do not print the notice of a new pip.
PIP = "install -q --disable-pip-version-check --no-index --find-links wheels"
_BACKEND = """\
import os, sys, zipfile
sys.path.insert(0, os.path.dirname(__file__))
NAME = "%(name)s-%(version)s-py3-none-any.whl"
FILES = %(files)r

def build_wheel(directory, *_):
    return _write(directory, {**FILES, "%(name)s.py": open("%(name)s.py").read()})

def build_editable(directory, *_):
    return _write(directory, {**FILES, "_%(name)s.pth": os.getcwd() + "\\n"})

def _write(directory, files):
    with zipfile.ZipFile(os.path.join(directory, NAME), "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return NAME
"""


def write_wheel(directory: Path, name: str, version: str) -> None:
    """Write a wheel of one module, with its version and a command of its name."""
    directory.mkdir(exist_ok=True)
    files = {f"{name}.py": _module(version), **_metadata(name, version)}
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)


def write_source_tree(directory: Path, name: str, version: str) -> None:
    """Write a project with its own build backend, which has no requirements."""
    directory.mkdir()
    (directory / f"{name}.py").write_text(_module(version))
    (directory / "backend.py").write_text(
        _BACKEND % {"name": name, "version": version, "files": _metadata(name, version)}
    )
    (directory / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "{version}"\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )


def _module(version: str) -> str:
    return f"VERSION = {version!r}\ndef main(): print('version', VERSION)\n"


def _metadata(name: str, version: str) -> dict[str, str]:
    folder = f"{name}-{version}.dist-info"
    files = {
        f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{folder}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{folder}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    files[f"{folder}/RECORD"] = "".join(f"{file},,\n" for file in (*files, f"{folder}/RECORD"))
    return files
