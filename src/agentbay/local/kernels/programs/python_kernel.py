"""The Python kernel: IPython's shell and display system, connected to a socket.

It runs inside a sandbox, as a program of its own or in a child of the zygote. `connection.py` describes the protocol.
"""

from __future__ import annotations

import base64
import builtins
import contextlib
import getpass
import importlib
import io
import json
import os
import resource
import signal
import site
import socket
import sys
import sysconfig
import threading
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn, TextIO

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import StdinNotImplementedError
from IPython.core.history import HistoryManager
from IPython.core.interactiveshell import InteractiveShell

_MAX_DISPLAY_BYTES = 24 << 20  # on the wire, of all forms of one display; the service takes frames of up to 32 MiB
_MAX_ERROR_CHARS = 256 << 10  # kept of the message of an error, and of its traceback
_PRELOADED = ("numpy", "pandas", "matplotlib.pyplot", "matplotlib_inline.backend_inline")
_WARM_UP_CODE = (
    "1 + 1",
    "1 / 0",
    "import matplotlib.pyplot as p; p.plot([1]); p.title('$x$'); p.show(); p.close('all')",
    "import pandas; display(pandas.DataFrame({'a': [1.5]}))",
)
_MATPLOTLIB_BACKEND = "module://matplotlib_inline.backend_inline"


class ServiceConnection:
    """The socket to the service."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._streams: tuple[TextIO, ...] = ()
        self._pid = 0
        self._send_lock = threading.Lock()  # code may display from threads of its own

    def open(self, sock: socket.socket) -> None:
        """Use a socket from now on."""
        self._socket, self._pid = sock, os.getpid()
        self._streams = (sys.stdout, sys.stderr)

    @property
    def in_forked_child(self) -> bool:
        """Whether this process is a child that code has forked."""
        return os.getpid() != self._pid

    def send(self, event: str, **facts: Any) -> None:
        """Send a frame after all output so far, except in a forked child."""
        if self._socket is None or self.in_forked_child:
            return
        with _InterruptHandler.deferred(), self._send_lock:
            self.flush()
            body = _encode({"event": event, **facts})
            self._socket.sendall(len(body).to_bytes(4, "little") + body)

    def flush(self) -> None:
        """Write out what Python buffers, also where code has closed or replaced its streams."""
        for stream in {*self._streams, sys.stdout, sys.stderr}:
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                continue

    def receive(self) -> dict[str, Any] | None:
        """Return the next request, or None if the service has disconnected."""
        head = self._read(4)
        body = self._read(int.from_bytes(head, "little")) if head else b""
        return json.loads(body) if body else None

    def _read(self, size: int) -> bytes:
        assert self._socket is not None
        data = b""
        while len(data) < size:
            chunk = self._socket.recv(size - len(data))
            if not chunk:
                return b""
            data += chunk
        return data


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

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        CONNECTION.send("result", data=_to_json_mime_bundle(format_dict), main=True)

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
        CONNECTION.send("result", data=_to_json_mime_bundle(data), main=False, display=identity, update=update)

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

    def system(self, cmd: str) -> None:
        CONNECTION.flush()
        try:
            self.system_raw(cmd)  # type: ignore[no-untyped-call]  # IPython's other way is through a terminal, which would turn "\n" into "\r\n"
        finally:
            _PACKAGES.refresh()  # `%pip install` and `!pip install` come here

    def ask_exit(self) -> NoReturn:
        raise SystemExit

    traceback = ""

    def _showtraceback(self, etype: type[BaseException], evalue: BaseException, stb: list[str]) -> None:
        sys.stderr.write(self.traceback)  # an earlier one of the same cell, such as of a display that failed
        self.traceback = "\n".join(stb) + "\n"

    def pop_traceback(self) -> str:
        """Return and clear the last traceback."""
        taken, self.traceback = self.traceback, ""
        return taken


def _message(error: BaseException) -> str:
    try:
        return _shorten(_escape_surrogates(str(error)))
    except Exception as another:  # noqa: BLE001 - the code's own class, which may do anything
        return f"<its message cannot be told: {type(another).__name__}>"


def _shorten(text: str) -> str:
    """Cut the middle out of a long text."""
    if len(text) <= _MAX_ERROR_CHARS:
        return text
    half = _MAX_ERROR_CHARS // 2
    return f"{text[:half]}\n[cut: {len(text) - 2 * half} characters]\n{text[-half:]}"


def _escape_surrogates(text: str) -> str:
    """Replace lone surrogates, which are no Unicode, by escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _encode(value: object) -> bytes:
    """Encode as JSON, with an escape for each lone surrogate."""
    return json.dumps(value, ensure_ascii=False, default=repr).encode("utf-8", "backslashreplace")


def _to_json_mime_bundle(data: dict[str, Any]) -> dict[str, Any]:
    """Return the forms as JSON can carry them, without those that are too large."""
    forms: dict[str, Any] = {}
    for mime, value in data.items():
        form = base64.b64encode(value).decode() if isinstance(value, (bytes, bytearray)) else value
        forms[mime] = _escape_surrogates(form) if isinstance(form, str) else form
    sizes = {mime: len(_encode(form)) for mime, form in forms.items()}
    left_out = 0
    while sum(sizes.values()) > _MAX_DISPLAY_BYTES:
        largest = max(sizes, key=sizes.__getitem__)
        left_out = max(left_out, sizes.pop(largest))
        del forms[largest]
    if left_out:
        note = f"[left out: {left_out} bytes are more than can be shown]"
        forms["text/plain"] = f"{forms['text/plain']}\n{note}" if "text/plain" in forms else note
    return forms


def create_shell() -> Any:
    """Create the shell, before its sandbox is known."""
    os.environ["MPLBACKEND"] = _MATPLOTLIB_BACKEND
    shell: Any = _Shell.instance()
    shell.colors = "nocolor"
    shell.display_formatter.active_types = list(shell.display_formatter.formatters)
    return shell


def warm_up(shell: Any) -> None:
    """Run what is slow the first time, for kernels that are forked later."""
    for name in _PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    former, sys.stderr = sys.stderr, io.StringIO()  # for the tracebacks
    for code in _WARM_UP_CODE:
        shell.run_cell(code, store_history=False)
    sys.stderr = former
    shell.pop_traceback()
    shell.reset(new_session=True)


def serve(shell: Any, control: socket.socket) -> NoReturn:
    """Run what the service sends until it disconnects."""
    _adapt_to_sandbox(shell)
    _PACKAGES.open()
    CONNECTION.open(control)
    CONNECTION.send("ready", pid=os.getpid())
    signal.signal(signal.SIGINT, _InterruptHandler.record_pending)
    while request := CONNECTION.receive():
        _run(shell, request)
    os._exit(0)


def _adapt_to_sandbox(shell: Any) -> None:
    """Set up what depends on the sandbox: streams, limits and paths."""
    sys.stdout, sys.stderr = _writer(1), _writer(2)
    _limit_memory()
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


def _writer(fd: int) -> TextIO:
    return open(fd, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)


def _limit_memory() -> None:
    """Limit this process to half of the machine's memory.

    Code that wants more gets a MemoryError, before the kernel kills something.
    """
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft == resource.RLIM_INFINITY or soft > half:
        resource.setrlimit(resource.RLIMIT_DATA, (half, hard))


def _reject_input(prompt: object = "", *_: object, **__: object) -> NoReturn:
    raise StdinNotImplementedError(
        f"input() cannot be answered here, there is nobody to ask ({str(prompt).strip()!r}). "
        "Put the value into the code instead."
    )


class _InterruptHandler:
    """Delivers SIGINT to the cell that runs, and to nothing else."""

    _pending = False

    @classmethod
    @contextlib.contextmanager
    def enabled(cls) -> Iterator[None]:
        """Let SIGINT raise KeyboardInterrupt in the block.

        An earlier cell may have set another handler.
        """
        cls._pending = False
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, cls.record_pending)

    @classmethod
    @contextlib.contextmanager
    def deferred(cls) -> Iterator[None]:
        """Defer SIGINT to the end of the block.

        So a frame is sent whole. Python delivers signals to the main thread only.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = signal.signal(signal.SIGINT, cls.record_pending)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, former)
        if cls._pending and former is signal.default_int_handler:
            cls._pending = False
            raise KeyboardInterrupt

    @classmethod
    def record_pending(cls, number: int, frame: FrameType | None) -> None:
        """Record an interrupt, as a signal handler."""
        cls._pending = True


def _run(shell: Any, request: dict[str, Any]) -> None:
    os.environ.update(request["env"])
    _PACKAGES.refresh()
    error: BaseException | None = None
    try:
        with _InterruptHandler.enabled():
            CONNECTION.send("begin")
            outcome = shell.run_cell(request["code"], store_history=True)
            error = outcome.error_before_exec or outcome.error_in_exec
    except KeyboardInterrupt as interrupt:
        error = error or interrupt
    except BaseException as failure:  # noqa: BLE001 - whatever a cell does to its shell, the service must hear of its end
        error = failure
    if CONNECTION.in_forked_child:  # of a fork in the cell: a second kernel at the same socket would take its requests
        CONNECTION.flush()
        os._exit(0 if error is None else 1)
    if isinstance(error, KeyboardInterrupt):
        _cancel_tasks()
    traceback = _shorten(_escape_surrogates(shell.pop_traceback()))
    if error is not None:
        CONNECTION.send("error", name=type(error).__name__, value=_message(error), traceback=traceback)
    elif traceback:
        sys.stderr.write(traceback)
    CONNECTION.send("done", count=shell.execution_count - 1)


def _cancel_tasks() -> None:
    """Cancel the tasks of an interrupted cell.

    They would go on in the next cell that awaits.
    """
    if "asyncio" not in sys.modules:  # it is imported with the first cell that awaits
        return
    import asyncio

    from IPython.core.async_helpers import get_asyncio_loop

    loop: Any = get_asyncio_loop()  # type: ignore[no-untyped-call]
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        with contextlib.suppress(BaseException):  # whatever a task raises at its end belongs to the interrupted cell
            loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))


def main() -> NoReturn:
    """Run as a program of its own."""
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    serve(create_shell(), control)


if __name__ == "__main__":
    main()
