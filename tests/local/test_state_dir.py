"""The directory where a runtime keeps its files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.local.raw import embedded


def test_what_comes_and_goes_is_kept_apart_on_the_disk(tmp_path: Path) -> None:
    """Sessions, contexts and layers get groups of inodes of their own, where the file system can be asked for it."""
    (plain := tmp_path / "plain").mkdir()
    chattr = shutil.which("chattr", path="/usr/bin:/bin:/usr/sbin:/sbin")
    assert chattr, "e2fsprogs is missing"
    has_groups = subprocess.run([chattr, "+T", plain], check=False, capture_output=True).returncode == 0
    with embedded(tmp_path / "state"):
        for name in ("sessions", "contexts", "contexts/staging", "images/work"):
            listed = subprocess.run(
                [chattr.replace("chattr", "lsattr"), "-d", tmp_path / "state" / name],
                check=False, capture_output=True, text=True,
            )  # fmt: skip
            assert ("T" in listed.stdout.partition(" ")[0]) == has_groups, name
