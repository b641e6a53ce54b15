"""Starts a private local runtime in a child process, for both flavours."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ._wire.converter import structure, unstructure
from ._wire.sessions import CreatedSessionData, CreateMcpSession
from .config import DEFAULT_REGION, DEFAULT_TIMEOUT_SECONDS, Settings
from .errors import ConfigurationError
from .models.local_options import LocalOptions, command_line, names_by_option

if TYPE_CHECKING:
    from ._runtime_container import ContainerRuntime

# The child gets this process's sys.path, since a program may have extended it. These paths come last, so
# that a file beside that program shadows no module of the runtime.
_PROGRAM = (
    "import runpy, sys; sys.path += [path for path in sys.argv.pop(1).split('\\n') if path not in sys.path]; "
    "runpy.run_module('agentbay.local', run_name='__main__', alter_sys=True)"
)
_STOP_TIMEOUT_SECONDS = 10.0
# An option, and the blank after it if a value follows.
_OPTION = re.compile(r"(--[a-z]+(?:-[a-z]+)*)( (?!(?:and|belong|cannot|needs|or|takes|too)\b)(?=\w))?")


class RuntimeLauncher:
    """A private runtime of this process.

    The child reads the key from its standard input, so the key is in no argument and no environment variable. The
    child exits when its standard input closes, so no runtime outlives this process, even if it is killed.
    """

    def __init__(self, options: LocalOptions) -> None:
        """Take the options of the runtime.

        Raises:
            InvalidArgumentError: An option has a wrong type.
            TypeError: There is no option of that name.
        """
        # Elsewhere than on Linux it runs in a container, for which nothing is loaded here.
        if options.get("container") is None and sys.platform.startswith("linux"):
            self._runtime: ProcessRuntime | ContainerRuntime = ProcessRuntime(options)
        else:
            from ._runtime_container import ContainerRuntime

            self._runtime = ContainerRuntime(options)
        self._key = os.urandom(32).hex()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._owner_pid = 0
        self._url = ""

    def settings(self, timeout: float | None) -> Settings:
        """Return the settings of its clients, except the URL, which `start()` returns."""
        return Settings(self._key, DEFAULT_REGION, "", "", DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout)

    def start(self) -> str:
        """Start the runtime unless it runs, and return its URL.

        It blocks until the runtime is ready, usually less than a second.

        Raises:
            ConfigurationError: If it cannot start on this machine; the message says what is missing.
        """
        with self._lock:
            if self._child is None:
                self._child, self._url = self._launch()
                self._owner_pid = os.getpid()
            return self._url

    def is_running(self) -> bool:
        """Return whether this process has started a runtime that it has not stopped."""
        return self._child is not None and self._owner_pid == os.getpid()

    def stop(self) -> None:
        """Stop the runtime and wait for its exit.

        Do nothing in a forked child.
        """
        with self._lock:
            child, self._child = self._child, None
            # After a fork the runtime still belongs to the parent, which alone can wait for it.
            if child is None or self._owner_pid != os.getpid():
                return
            assert child.stdin is not None
            # End of input tells the child to stop. One that is gone already breaks the pipe.
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
            if not _ends_within(child, _STOP_TIMEOUT_SECONDS):
                self._runtime.kill(child)
            child.wait()
            assert child.stdout is not None
            child.stdout.close()

    def _launch(self) -> tuple[subprocess.Popen[str], str]:
        # A file and not a pipe: nobody reads it while the runtime runs, and a full pipe would block the runtime.
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr_file:
            start_time = time.monotonic()
            child = self._runtime.spawn(stderr_file)
            try:
                line = self._read_ready_line(child)
                if " ready at " in line:
                    return child, self._runtime.url(line)
            # KeyboardInterrupt too: no half-started child may stay behind.
            except BaseException:
                self._discard(child)
                raise
            self._discard(child)
            stderr_file.seek(0)
            why = (
                _name_arguments(stderr_file.read().strip())
                or f"it exited after {time.monotonic() - start_time:.1f} s and gave no reason"
            )
        raise ConfigurationError(f"The local runtime cannot start: {why}")

    def _read_ready_line(self, child: subprocess.Popen[str]) -> str:
        """Give the child its key, and return the line that it prints.

        It is "" if the child ended or took too long.
        """
        assert child.stdin is not None
        assert child.stdout is not None
        # readline has no timeout: the timer ends it by killing the child.
        kill_timer = threading.Timer(self._runtime.start_timeout_seconds, self._runtime.kill, [child])
        kill_timer.daemon = True  # one that still runs must not keep an interrupted program alive
        kill_timer.start()
        try:
            # A child that has died at once breaks the pipe, and its standard error says why.
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(f"{self._key}\n")
                child.stdin.flush()
            _prepare_first_call()
            return child.stdout.readline()
        finally:
            kill_timer.cancel()

    def _discard(self, child: subprocess.Popen[str]) -> None:
        self._runtime.kill(child)
        child.communicate()  # waits for its end, and closes the pipes


class ProcessRuntime:
    """A private runtime as a child process on Linux."""

    start_timeout_seconds = 30.0

    def __init__(self, options: LocalOptions) -> None:
        """Take the options."""
        self._arguments = ["--log-level=warning", *command_line(options)]

    def spawn(self, stderr_file: IO[str]) -> subprocess.Popen[str]:
        """Start the process.

        Raises:
            ConfigurationError: It cannot be started.
        """
        if not sys.executable:
            raise ConfigurationError(
                "The local runtime runs in a child process, and this Python does not know its own program: "
                "sys.executable is empty, as in an embedded interpreter.",
                hint="Set sys.executable, or start a runtime by itself (agentbay local) and give its endpoint and key.",
            )
        paths = "\n".join(path for path in sys.path if Path(path).is_absolute())
        try:
            return subprocess.Popen(
                # -P: a file in the working directory must not shadow a module of the runtime
                [sys.executable, "-P", "-c", _PROGRAM, paths, *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr_file,
                text=True,
                start_new_session=True,  # Ctrl-C must reach this process alone, which then stops the child in order
            )
        except OSError as error:  # such as arguments that are too long, or no memory
            raise ConfigurationError(
                f"The local runtime cannot start: {sys.executable!r} cannot be run: {error.strerror}."
            ) from error

    def url(self, ready_line: str) -> str:
        """Return the URL in the line that says it is ready."""
        return ready_line.rsplit(" ", 1)[1].strip()

    def kill(self, child: subprocess.Popen[str]) -> None:
        """End it, whatever it does."""
        child.kill()


def _ends_within(child: subprocess.Popen[str], seconds: float) -> bool:
    """Wait for the end of a process, and return whether it came."""
    if sys.platform == "linux" and hasattr(os, "pidfd_open"):
        # With a time limit, `Popen.wait` looks up to 50 ms late.
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:  # an old kernel, or no descriptor left
            pidfd = os.pidfd_open(child.pid)
            opened.callback(os.close, pidfd)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            return bool(poll.poll(seconds * 1000))
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _prepare_first_call() -> None:
    """Load what the first call needs, while the runtime starts on another processor."""
    unstructure(CreateMcpSession())
    structure({}, CreatedSessionData)


def _name_arguments(message: str) -> str:
    """Replace command-line options in a message by the arguments of `local()`.

    Its messages name the options of its command line.
    """
    names = names_by_option()

    def name_argument(found: re.Match[str]) -> str:
        return names[found[1]] + ("=" if found[2] else "") if found[1] in names else found[0]

    return _OPTION.sub(name_argument, message)
