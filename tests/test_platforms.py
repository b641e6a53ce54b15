"""The client needs nothing that only Linux or POSIX has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, pkgutil, signal, socket, sys

import asyncio, subprocess, multiprocessing.util, pathlib, shutil, tempfile  # the standard library asks for itself

for name in ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty", "uvloop"):
    sys.modules[name] = None
for module, names in (
    (os, "fork geteuid getuid killpg mkfifo memfd_create pidfd_open register_at_fork setsid sched_getaffinity uname"),
    (signal, "SIGALRM SIGCHLD SIGHUP SIGKILL SIGSTOP SIGTSTP SIGUSR1 SIGWINCH pthread_sigmask"),
    (socket, "AF_UNIX AF_NETLINK SCM_RIGHTS send_fds recv_fds"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)

import agentbay

# The runtime is for Linux. What the others import of other packages asks for the platform by its name, which is Linux.
elsewhere = ("agentbay.local.", "agentbay.mcp_server.", "agentbay.integrations.", "agentbay._mcp_connection")
for found in pkgutil.walk_packages(agentbay.__path__, "agentbay."):
    if not found.name.startswith(elsewhere) and not found.name.endswith("__main__"):
        __import__(found.name)
        print(found.name)
for name in agentbay.__all__:
    getattr(agentbay, name)
for make in (agentbay.AgentBay, agentbay.AsyncAgentBay):
    make("key"), make.local()
"""


def test_every_module_of_the_client_is_imported(tmp_path: Path) -> None:
    """The client's modules import where POSIX modules, functions and signals are missing."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    imported = set(done.stdout.split())
    assert {"agentbay._async.session", "agentbay._sync.pty", "agentbay.cli.attach", "agentbay.testing"} <= imported
