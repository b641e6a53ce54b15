"""Starts a private runtime in a child process; the same for both flavours, so there is one of it."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence

from .config import DEFAULT_REGION, DEFAULT_TIMEOUT_SECONDS, Settings
from .errors import ConfigurationError

_START_TIMEOUT_SECONDS = 30.0
_STOP_TIMEOUT_SECONDS = 10.0


class RuntimeLauncher:
    """A private runtime: made with the first `start()`, gone with `stop()` or with this process.

    The child's standard input is its lifeline: the key comes through it, and when it closes the child ends. So the
    key is in no argument and no environment, and nothing is left when this process dies, however it dies.
    """

    def __init__(
        self, *, state_dir: str | None, isolation: str, network: str | None = None, allow_hosts: Sequence[str] = ()
    ) -> None:
        self._arguments = ["--isolation", isolation, *(["--state-dir", state_dir] if state_dir else [])]
        self._arguments += [
            *(["--network", network] if network else []),
            *(f"--allow-host={host}" for host in allow_hosts),
        ]
        self._key = secrets.token_hex(32)
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._owner_pid = 0
        self._url = ""

    def settings(self, timeout: float | None) -> Settings:
        """What a client of it needs to know, but for the address, which only `start()` can tell."""
        return Settings(self._key, DEFAULT_REGION, "", "", DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout)

    def start(self) -> str:
        """Start the runtime, unless it has been; return its URL. Blocks until it is ready, well under a second.

        Raises:
            ConfigurationError: If it cannot start here; says what is missing.
        """
        with self._lock:
            if self._child is None:
                self._child, self._url = self._launch()
                self._owner_pid = os.getpid()
            return self._url

    def stop(self) -> None:
        """End the runtime and wait until it is gone; in a forked child, leave it to the parent."""
        with self._lock:
            child, self._child = self._child, None
            if child is None or self._owner_pid != os.getpid():
                return
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
            try:
                child.wait(_STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            assert child.stdout is not None
            child.stdout.close()

    def _launch(self) -> tuple[subprocess.Popen[str], str]:
        if not sys.platform.startswith("linux"):
            raise ConfigurationError(
                f"The local runtime needs Linux; this is {sys.platform}.",
                hint="Use it in a Linux container or virtual machine, or use the cloud with an API key.",
            )
        with tempfile.TemporaryFile("w+", encoding="utf-8") as complaints:
            child = subprocess.Popen(
                # -P: what lies in the working directory of this program must not become a module of the runtime
                [sys.executable, "-P", "-m", "agentbay.local", *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                start_new_session=True,  # so that Ctrl-C reaches this process, which then ends the child in order
            )
            assert child.stdin is not None
            assert child.stdout is not None
            watch = threading.Timer(_START_TIMEOUT_SECONDS, child.kill)
            watch.start()
            began = time.monotonic()
            try:
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.write(f"{self._key}\n")
                    child.stdin.flush()
                line = child.stdout.readline()
            finally:
                watch.cancel()
            if " ready at " in line:
                return child, line.rsplit(" ", 1)[1].strip()
            child.kill()
            child.wait()
            complaints.seek(0)
            why = complaints.read().strip() or f"it ended after {time.monotonic() - began:.1f} s and gave no reason"
        raise ConfigurationError(f"The local runtime cannot start: {why}")
