"""Podman for tests: with a store of its own, and containers that see the programs of this machine."""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import agentbay

IMAGE = "localhost/agentbay-test"
SOURCE = Path(agentbay.__file__).resolve().parents[1]
_DIRECTORIES = {"usr": 0o755, "etc": 0o755, "tmp": 0o1777, "var": 0o755, "run": 0o755, "proc": 0o755, "sys": 0o755}
_USER, _STATE = 1000, "/var/lib/agentbay"  # as in src/agentbay/local/Containerfile
_LINKS = ("bin", "sbin", "lib", "lib64")
_SHOWN = ("/usr", "/etc/ld.so.cache", "/etc/alternatives", "/etc/ssl", sys.base_prefix)
_LIMITS = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
_MOST = 20_000  # of either: podman asks for more by default than some machines allow
_HYBRID = "/sys/fs/cgroup/unified"  # crun refuses control groups of both versions side by side


class Podman:
    """Podman with an image of the runtime that is thin, since its containers see this machine's programs.

    Nothing is pulled or installed: an image from the Containerfile would take minutes.

    Attributes:
        environment: Variables that make podman use these settings.
        prefix: A command that starts another one where podman can work.
    """

    def __init__(self, directory: Path) -> None:
        self.environment = {
            "CONTAINERS_CONF": str(directory / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
        }
        self._namespace: subprocess.Popen[str] | None = None
        self.prefix: tuple[str, ...] = ()
        if os.path.ismount(_HYBRID):
            self._namespace = _hold_namespace()
            self.prefix = ("nsenter", f"--target={self._namespace.pid}", "--mount")
        packages = sysconfig.get_path("purelib")
        shown = [f"{path}:{path}:ro" for path in (*_SHOWN, packages, SOURCE) if Path(path).exists()]
        limits = [f"{name}={most}:{most}" for name, most in ((name, _limit(kind)) for name, kind in _LIMITS.items())]
        lists = {"volumes": shown, "default_ulimits": limits}
        lines = [f"{name} = {json.dumps(values)}" for name, values in lists.items()]
        (directory / "containers.conf").write_text("\n".join(["[containers]", *lines, ""]))
        (directory / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{directory}/store"\nrunroot = "{directory}/run"\n'
        )
        variables = {
            "HOME": "/tmp",
            "PATH": f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": f"{SOURCE}:{packages}",
        }
        changes = [f"ENV {name}={value}" for name, value in variables.items()] + [f"USER {_USER}", f"VOLUME {_STATE}"]
        options = [f"--change={change}" for change in changes]
        self.do("import", "--quiet", *options, str(_thin_root(directory / "root.tar")), IMAGE)

    def close(self) -> None:
        """Remove all containers, volumes and images."""
        self.do("rm", "--force", "--all", "--volumes")
        self.do("rmi", "--force", "--all")
        if self._namespace is not None:
            self._namespace.communicate()

    def do(self, *arguments: str) -> str:
        """Run a command of podman, and return its output."""
        return self.run("podman", *arguments).stdout

    def run(self, *command: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a program that may use podman, which must exit with this status."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run([*self.prefix, *command], env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == status, done.stderr
        return done


def _hold_namespace() -> subprocess.Popen[str]:
    """Return a process in a mount namespace without those control groups, which ends with its standard input."""
    command = ["unshare", "--mount", "sh", "-c", f"umount {_HYBRID}; echo ready; exec cat"]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    return holder


def _limit(kind: int) -> int:
    hard = resource.getrlimit(kind)[1]
    return _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)


def _thin_root(file: Path) -> Path:
    """Write a root file system that has the directories alone which others are mounted on."""
    accounts = {"etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n", "etc/group": b"root:x:0:\n"}
    with tarfile.open(file, "w") as archive:
        for name, mode in _DIRECTORIES.items():
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, mode
            archive.addfile(member)
        state = tarfile.TarInfo(_STATE.lstrip("/"))
        state.type, state.mode, state.uid, state.gid = tarfile.DIRTYPE, 0o700, _USER, _USER
        archive.addfile(state)
        for name in _LINKS:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, f"usr/{name}"
            archive.addfile(member)
        for name, content in accounts.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file
