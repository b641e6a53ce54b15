"""The Python kernel: IPython's shell and display system, connected to a socket.

It runs inside a sandbox, as a program of its own or in a child of the zygote. `connection.py` describes the protocol.
"""

from __future__ import annotations

import builtins
import contextlib
import getpass
import importlib
import io
import os
import resource
import signal
import site
import socket
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NoReturn

from IPython.core import interactiveshell
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import StdinNotImplementedError
from IPython.core.history import HistoryManager
from IPython.core.interactiveshell import InteractiveShell

from agentbay.local.kernels.programs.cell_loop import CellLoop
from agentbay.local.kernels.programs.error_text import cut_tracebacks, escape_surrogates, make_message, shorten
from agentbay.local.kernels.programs.memory_limit import MemoryLimit
from agentbay.local.kernels.programs.mime_bundle import can_be_json, make_mime_bundle
from agentbay.local.kernels.programs.service_connection import InterruptHandler, ServiceConnection

_SIGNAL_EXIT_CODE = 128  # a shell adds the number of the signal
_PRELOADED = ("numpy", "pandas", "matplotlib.pyplot", "matplotlib_inline.backend_inline")
_WARM_UP_CODE = (
    "1 + 1",
    "1 / 0",
    "import matplotlib.pyplot as p; p.plot([1]); p.title('$x$'); p.show(); p.close('all')",
    "import pandas; display(pandas.DataFrame({'a': [1.5]}))",
)
_MATPLOTLIB_BACKEND = "module://matplotlib_inline.backend_inline"


CONNECTION = ServiceConnection()


class _InstalledPackages:
    """Makes importable what was installed or written since the last look, whoever did it."""

    def __init__(self) -> None:
        self._directory = ""
        self._read_path_files: set[str] = set()
        self._changed_ns = 0

    def open(self) -> None:
        """Note what this process has read at its start."""
        self._directory = sysconfig.get_path("purelib")
        self._read_path_files = set(self._path_files())

    def refresh(self) -> None:
        """Clear the import caches, and read new path files.

        Editable installs come with such a file.
        """
        importlib.invalidate_caches()
        for name in self._path_files():
            if name not in self._read_path_files:
                self._read_path_files.add(name)
                site.addpackage(self._directory, name, None)

    def _path_files(self) -> list[str]:
        try:
            changed = os.stat(self._directory).st_mtime_ns
            if changed == self._changed_ns:
                return []
            self._changed_ns = changed
            return sorted(name for name in os.listdir(self._directory) if name.endswith(".pth"))
        except OSError:  # code has removed it
            return []


_PACKAGES = _InstalledPackages()


class _ResultDisplayHook(DisplayHook):
    """Sends the value of a cell."""

    def compute_format_data(self, result: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        forms, metadata = super().compute_format_data(result)  # type: ignore[no-untyped-call]
        if isinstance(result, (dict, list)) and "application/json" not in forms and can_be_json(result):
            forms = {**forms, "application/json": result}
        return forms, metadata

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        CONNECTION.send("result", data=make_mime_bundle(format_dict), main=True)

    def write_output_prompt(self) -> None: ...

    def start_displayhook(self) -> None: ...

    def finish_displayhook(self) -> None: ...


class _FrameDisplayPublisher(DisplayPublisher):
    """Sends what a cell displays while it runs."""

    def publish(
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        source: object = None,
        *,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **_: Any,
    ) -> None:
        identity = (transient or {}).get("display_id")
        CONNECTION.send("result", data=make_mime_bundle(data), main=False, display=identity, update=update)

    def clear_output(self, wait: bool = False) -> None:
        CONNECTION.send("clear", wait=bool(wait))


class _Shell(InteractiveShell):
    """IPython's shell without a terminal."""

    displayhook_class = _ResultDisplayHook
    display_pub_class = _FrameDisplayPublisher

    def init_history(self) -> None:
        # Enabled, it opens a database and starts a thread, and neither would survive the fork of the zygote.
        self.history_manager = HistoryManager(shell=self, parent=self, enabled=False)

    def enable_gui(self, gui: str | None = None) -> None: ...

    @contextlib.contextmanager
    def _tee(self, channel: str) -> Iterator[None]:
        yield  # IPython's own keeps all that is printed in memory, and needs a stream to do so

    def system(self, cmd: str) -> None:
        CONNECTION.flush()
        # IPython's ways are through a terminal, which would turn "\n" into "\r\n", or take an interrupt for themselves.
        command: str = self.var_expand(cmd, depth=1)  # type: ignore[no-untyped-call]
        try:
            code = subprocess.call(_in_shell(command))
        finally:
            _PACKAGES.refresh()  # `%pip install` and `!pip install` come here
        self.command_failed |= code != 0
        self.user_ns["_exit_code"] = code if code <= _SIGNAL_EXIT_CODE else _SIGNAL_EXIT_CODE - code
        if code and getattr(self, "system_raise_on_error", False):
            raise subprocess.CalledProcessError(code, command)

    def ask_exit(self) -> NoReturn:
        raise SystemExit

    traceback = _cut = ""
    command_failed = False  # in the cell that runs
    spare_memory: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext

    def showtraceback(self, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
        error = (exc_tuple or sys.exc_info())[1]
        with self.spare_memory():
            if isinstance(error, BaseException):
                self._cut = cut_tracebacks(error, globals())
                exc_tuple = type(error), error, error.__traceback__
            super().showtraceback(exc_tuple, *args, **kwargs)

    def _showtraceback(self, etype: type[BaseException], evalue: BaseException, stb: list[str]) -> None:
        CONNECTION.write_error(self.traceback)  # an earlier one of the same cell, such as of a display that failed
        self.traceback = "\n".join(stb) + "\n" + self._cut

    def pop_traceback(self) -> str:
        """Return and clear the last traceback."""
        taken, self.traceback = self.traceback, ""
        return taken

    def pop_command_failed(self) -> bool:
        """Return whether a command of the cell failed, and clear it."""
        taken, self.command_failed = self.command_failed, False
        return taken


def _command_output(command: str) -> str:
    """Return what a command writes to both streams, for `x = !command`.

    IPython's own takes an interrupt for itself, and the cell goes on.
    """
    CONNECTION.flush()
    done = subprocess.run(
        _in_shell(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    _PACKAGES.refresh()
    if done.returncode:
        _Shell.instance().command_failed = True
    return done.stdout.decode(errors="replace")


def _in_shell(command: str) -> list[str]:
    return [os.environ.get("SHELL") or "/bin/sh", "-c", command]


def create_shell() -> Any:
    """Create the shell, before its sandbox is known."""
    os.environ["MPLBACKEND"] = _MATPLOTLIB_BACKEND
    shell: Any = _Shell.instance()
    shell.colors = "nocolor"
    shell.display_formatter.active_types = list(shell.display_formatter.formatters)
    setattr(interactiveshell, "getoutput", _command_output)  # noqa: B010 - IPython declares no type for it
    return shell


def warm_up(shell: Any) -> None:
    """Run what is slow the first time, for kernels that are forked later."""
    for name in _PRELOADED:
        # Packages that this Python does not have need no warming up.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    former, sys.stderr = sys.stderr, io.StringIO()  # for the tracebacks
    for code in _WARM_UP_CODE:
        shell.run_cell(code, store_history=False)
    sys.stderr = former
    _show_figures_first(shell)
    shell.pop_traceback()
    shell.reset(new_session=True)


def _show_figures_first(shell: Any) -> None:
    """Show the figures of a cell before pyplot would draw them.

    They are drawn to be shown, and closed then; the other way around, pyplot draws each of them once for nothing.
    """
    shell.events.callbacks["post_execute"].sort(key=lambda callback: callback.__name__ != "flush_figures")


def serve(shell: Any, control: socket.socket, memory_used_bytes: int = 0) -> NoReturn:
    """Run what the service sends until it disconnects.

    Args:
        shell: The shell.
        control: The socket to the service.
        memory_used_bytes: What this process uses already of the session's memory.
    """
    _PACKAGES.open()
    CONNECTION.open(control)
    shell.spare_memory = MemoryLimit(memory_used_bytes).spare
    loop = CellLoop(lambda error: _report(shell, error), CONNECTION.exit_forked_child)
    CONNECTION.send("ready", pid=os.getpid())
    signal.signal(signal.SIGINT, InterruptHandler.record_pending)
    while request := _next_request(shell, loop, control):
        _run(shell, loop, request)
    os._exit(0)


def _next_request(shell: Any, loop: CellLoop, control: socket.socket) -> dict[str, Any] | None:
    with shell.spare_memory():
        loop.wait_readable(control)
        return CONNECTION.receive()


def _report(shell: Any, error: BaseException) -> None:
    """Tell what a task has raised while no cell ran."""
    shell.showtraceback((type(error), error, error.__traceback__))
    CONNECTION.write_error(shell.pop_traceback())


def adapt_to_sandbox(shell: Any) -> None:
    """Set up the paths and functions that depend on the sandbox."""
    sys.path.insert(0, "")
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # or every child of the zygote would draw the same numbers
    _forget_host_paths(shell)
    builtins.input = getpass.getpass = _reject_input
    warnings.filterwarnings("ignore", message="To exit: use 'exit'")  # IPython's advice after sys.exit()


def _forget_host_paths(shell: Any) -> None:
    """Replace the zygote's folders on the host by those of the sandbox."""
    folder = os.environ.get("IPYTHONDIR", "")
    former = shell.ipython_dir
    if folder and former != folder:
        for owner in shell, shell.profile_dir:
            traits = owner._trait_values  # not through the traits, which would make six folders
            traits.update({name: folder + v[len(former) :] for name, v in traits.items() if _is_below(v, former)})
    if matplotlib := sys.modules.get("matplotlib"):
        matplotlib.get_configdir = matplotlib.get_cachedir = _matplotlib_folder  # type: ignore[attr-defined]


def _is_below(value: object, folder: str) -> bool:
    return isinstance(value, str) and (value == folder or value.startswith(folder + "/"))


def _matplotlib_folder() -> str:
    folder = os.environ.get("MPLCONFIGDIR") or os.path.expanduser("~/.config/matplotlib")
    os.makedirs(folder, exist_ok=True)
    return folder


def _reject_input(prompt: object = "", *_: object, **__: object) -> NoReturn:
    raise StdinNotImplementedError(
        f"input() cannot be answered here, there is nobody to ask ({str(prompt).strip()!r}). "
        "Put the value into the code instead."
    )


def _run(shell: Any, loop: CellLoop, request: dict[str, Any]) -> None:
    os.environ.update(request["env"])
    _PACKAGES.refresh()
    CONNECTION.reopen_streams()
    error: BaseException | None = None
    try:
        with InterruptHandler.enabled(), loop.entered():
            CONNECTION.send("begin")
            outcome = shell.run_cell(request["code"], store_history=True)
            error = outcome.error_before_exec or outcome.error_in_exec
            if not (CONNECTION.in_forked_child or isinstance(error, KeyboardInterrupt)):
                loop.begin_new_tasks()
    except KeyboardInterrupt as interrupt:
        error = error or interrupt
    except BaseException as failure:  # noqa: BLE001 - whatever a cell does to its shell, the service must hear of its end
        error = failure
    CONNECTION.exit_forked_child(0 if error is None else 1)
    if isinstance(error, KeyboardInterrupt):
        loop.cancel_new_tasks()
    with shell.spare_memory():
        _report_end(shell, error)


def _report_end(shell: Any, error: BaseException | None) -> None:
    traceback = shorten(escape_surrogates(shell.pop_traceback()))
    if error is not None:
        CONNECTION.send("error", name=type(error).__name__, value=make_message(error), traceback=traceback)
    elif traceback:
        CONNECTION.write_error(traceback)
    CONNECTION.send("done", count=shell.execution_count - 1, command_failed=shell.pop_command_failed())


def main() -> NoReturn:
    """Run as a program of its own."""
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    shell = create_shell()
    adapt_to_sandbox(shell)
    serve(shell, control, memory_used_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)
