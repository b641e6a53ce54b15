"""Credentials in configuration files of the host that sandboxes see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.local.raw import embedded
from tests.local.users import ROOT, User

FILES = {
    "pip/pip.conf": "[global]\nindex-url = https://deploy:S3cretLogin@127.0.0.1:9/index\n",
    "plain/plain.conf": "index-url = https://127.0.0.1:9/index\n",
}
# with /etc/xdg replaced for the runtime alone, in a mount namespace of its own
WITHIN = 'mount --bind "$0" /etc/xdg && exec "$@"'


@pytest.mark.skipif(not ROOT, reason="replacing /etc/xdg takes root")
@pytest.mark.skipif(not Path("/etc/xdg").is_dir(), reason="this machine has no /etc/xdg")
def test_files_with_credentials_are_hidden(somebody: User):
    """A session reads neither the login in pip.conf nor misses a file without one."""
    directory = somebody.directory / "xdg"
    for name, content in FILES.items():
        (directory / name).parent.mkdir(parents=True)
        (directory / name).write_text(content)
    starts = somebody.starts()
    python = ("unshare", "--mount", "sh", "-c", WITHIN, str(directory), *starts.pop("python"))
    with embedded(None, python=python, **starts) as (_, wire), wire.session() as session:
        seen = wire.stdout(session, "cat /etc/xdg/pip/pip.conf /etc/xdg/plain/plain.conf; env; cat /proc/mounts")
        assert FILES["plain/plain.conf"] in seen
        assert "S3cretLogin" not in seen
        if somebody.is_root:
            with wire.session(SessionOptions=json.dumps({"Writable": ["/"]})) as writable:
                script = (
                    "mv /etc/xdg /etc/moved; cat /etc/xdg/pip/pip.conf /etc/moved/pip/pip.conf; rm -r /etc/xdg; ls /etc"
                )
                assert "S3cretLogin" not in wire.stdout(writable, script)
                assert "S3cretLogin" not in wire.stdout(writable, "cat /etc/*/pip/pip.conf; true")
        assert "PIP_INDEX_URL=https://127.0.0.1:9/index" in seen
