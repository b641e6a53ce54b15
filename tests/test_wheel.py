"""The built wheel and sdist, and a program on the installed wheel."""

from __future__ import annotations

import email
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import agentbay
from tests.once import once

if sys.platform != "linux":
    pytest.skip("the local runtime needs Linux", allow_module_level=True)

ROOT = Path(__file__).parent.parent
if not (ROOT / "src").is_dir():
    pytest.skip("scripts/package tests a wheel that it has built and checked itself", allow_module_level=True)
pytestmark = pytest.mark.slow


def run(*line: object, **options: object) -> str:
    """Run a program that must exit with 0."""
    done = subprocess.run([*map(str, line)], capture_output=True, text=True, timeout=300, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build wheel and sdist, and return their folder."""

    def build(folder: Path) -> str:
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
        return str(folder)

    return Path(once(tmp_path_factory, "dist", build))


def test_what_is_in_them(built: Path) -> None:
    """The wheel holds only the package, the sdist also its tests."""
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    assert agentbay.__version__ in wheel.name
    assert agentbay.__version__ in sdist.name
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"agentbay", f"agentbay_sdk-{agentbay.__version__}.dist-info"}
    sources = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src/agentbay").rglob("*.py*")}
    sources = {name for name in sources if "__pycache__" not in name}
    assert sources <= set(names)
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "build_sync.py", "tests/test_wheel.py"} <= inside


def test_twine_is_content(built: Path) -> None:
    """`twine check` accepts both."""
    run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir())


def test_program_on_the_wheel(built: Path, tmp_path: Path) -> None:
    """The installed wheel runs a session, and its command prints the version."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # What it needs is taken from where the tests run: a .pth brings what is installed there, not what is linked.
    (site / "needs.pth").write_text(sysconfig.get_path("purelib") + "\n")
    program = (
        "import agentbay\nprint(agentbay.__file__)\n"
        "with agentbay.AgentBay.local() as bay, bay.session() as session:\n"
        "    print(session.command.run('echo $((6 * 7))').output)\n"
    )
    output = run(python, "-I", "-c", program, cwd=tmp_path).splitlines()
    assert Path(output[0]).is_relative_to(site)
    assert output[1] == "42"
    assert run(python.with_name("agentbay"), "version").strip().endswith(agentbay.__version__)


def test_metadata(built: Path) -> None:
    """The metadata has README, licence and dependencies, and no local path."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"agentbay_sdk-{agentbay.__version__}.dist-info/METADATA").decode()
    found = email.message_from_string(text)
    assert found["Version"] == agentbay.__version__
    assert found["License-Expression"] == "Apache-2.0"
    assert "A first program" in str(found.get_payload())
    assert str(ROOT) not in text
