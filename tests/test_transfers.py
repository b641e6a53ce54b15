"""Memory that the transfer of a large file needs in the client."""

from __future__ import annotations

import filecmp
import io
import json
import os
import secrets
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbay._transport import tree_scripts as scripts
from tests import cutting

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("transfer_program.py")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with cutting.runtime() as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
@pytest.mark.parametrize("flavour", ["async", "sync"])
@pytest.mark.parametrize("mib", [48, pytest.param(1024, marks=pytest.mark.soak)])
def test_memory_is_flat(url: str, flavour: str, mib: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A large file is transferred without being held in memory."""
    file = tmp_path / "file"
    with file.open("wb") as made:
        for _ in range(mib // 16):
            made.write(os.urandom(16 << 20))
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", str(PROGRAM), flavour, url, cutting.KEY, str(file)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seen = json.loads(ran.stdout)
    assert filecmp.cmp(file, tmp_path / "back", shallow=False)
    for each in (file, tmp_path / "back"):
        each.unlink()
    (up, after_up), (down, after_down) = seen["up"], seen["down"]
    if mib > 1000:
        with capsys.disabled():
            print(f"\n{flavour}: {mib} MiB up in {up:.0f} s, down in {down:.0f} s; ", end="")
            print(f"peak memory {seen['before']:.0f} MiB before, {after_up:.0f} after up, {after_down:.0f} after down")
    assert after_down - seen["before"] < 16
    assert after_down < 100


@pytest.mark.skipif(sys.platform != "linux", reason="the script runs in sessions, which are Linux")
def test_a_packed_file_has_one_time(tmp_path: Path) -> None:
    """A header holds the time of modification to the nanosecond, and no time that nobody reads."""
    (tmp_path / "file").write_text("content")
    os.utime(tmp_path / "file", ns=(1, 1_234_567_890_123_456_789))
    script = scripts.pack_stream_script(str(tmp_path), secrets.token_hex(8))
    packed = subprocess.run(["sh", "-c", script], input=scripts.encode_names(["file"]), capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        assert [member.pax_headers for member in archive] == [{"mtime": "1234567890.123456789"}]
