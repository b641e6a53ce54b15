"""The Python kernel: IPython's shell, display system and formatters at a socket.

It runs inside a sandbox, either as a program of its own or in a child of the zygote. Descriptor 0 is the socket at
first: each way go frames, a length of 4 bytes and a JSON object. What code and the processes that it starts write goes
to descriptors 1 and 2, which are pipes; before a frame is sent, everything written until then is in the pipes.
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

_MAX_DISPLAY_BYTES = 24 << 20  # bytes of one thing shown; the service takes no larger frame than 32 MiB
_PRELOADED = ("numpy", "pandas", "matplotlib.pyplot", "matplotlib_inline.backend_inline")
_WARM_UP_CODE = (
    "1 + 1",
    "1 / 0",
    "import matplotlib.pyplot as p; p.plot([1]); p.title('$x$'); p.show(); p.close('all')",
    "import pandas; display(pandas.DataFrame({'a': [1.5]}))",
)
_MATPLOTLIB_BACKEND = "module://matplotlib_inline.backend_inline"


class ServiceConnection:
    """The way to the service."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._streams: tuple[TextIO, ...] = ()
        self._pid = 0
        self._send_lock = threading.Lock()  # code may display from threads of its own

    def open(self, sock: socket.socket) -> None:
        """Send to `sock` from now on."""
        self._socket, self._pid = sock, os.getpid()
        self._streams = (sys.stdout, sys.stderr)

    def send(self, event: str, **facts: Any) -> None:
        """Send a frame after what has been written so far; a forked child of the kernel has nobody to tell."""
        if self._socket is None or os.getpid() != self._pid:
            return
        with _InterruptHandler.deferred(), self._send_lock:
            self.flush()
            body = json.dumps({"event": event, **facts}, default=repr).encode()
            self._socket.sendall(len(body).to_bytes(4, "little") + body)

    def flush(self) -> None:
        """Write out what Python still holds back; code may have closed or replaced its streams."""
        for stream in {*self._streams, sys.stdout, sys.stderr}:
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                continue

    def receive(self) -> dict[str, Any] | None:
        """Return the next request, or None if the service has gone."""
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


class _ResultDisplayHook(DisplayHook):
    """Sends the value of a cell."""

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        CONNECTION.send("result", data=_to_json_mime_bundle(format_dict), main=True)

    def write_output_prompt(self) -> None: ...

    def start_displayhook(self) -> None: ...

    def finish_displayhook(self) -> None: ...


class _FrameDisplayPublisher(DisplayPublisher):
    """Sends what a cell displays on the way."""

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
        CONNECTION.send("clear")


class _Shell(InteractiveShell):
    """IPython's shell without a terminal."""

    displayhook_class = _ResultDisplayHook
    display_pub_class = _FrameDisplayPublisher

    def init_history(self) -> None:
        self.history_manager = HistoryManager(shell=self, parent=self, enabled=False)

    def enable_gui(self, gui: str | None = None) -> None: ...

    def system(self, cmd: str) -> None:
        CONNECTION.flush()
        self.system_raw(cmd)  # type: ignore[no-untyped-call]  # IPython's other way is through a terminal, which would turn "\n" into "\r\n"

    def ask_exit(self) -> NoReturn:
        raise SystemExit

    traceback = ""

    def _showtraceback(self, etype: type[BaseException], evalue: BaseException, stb: list[str]) -> None:
        sys.stderr.write(self.traceback)  # of something on the way, such as a display that failed
        self.traceback = "\n".join(stb) + "\n"

    def pop_traceback(self) -> str:
        """Return the last traceback, and forget it."""
        taken, self.traceback = self.traceback, ""
        return taken


def _message(error: BaseException) -> str:
    try:
        return _escape_surrogates(str(error))
    except Exception as another:  # noqa: BLE001 - the code's own class, which may do anything
        return f"<its message cannot be told: {type(another).__name__}>"


def _escape_surrogates(text: str) -> str:
    """Write what is no Unicode, lone surrogates, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _to_json_mime_bundle(data: dict[str, Any]) -> dict[str, Any]:
    """Write each form as JSON can carry it; what is too large is left out, and says so."""
    forms: dict[str, Any] = {}
    left_out = 0
    for mime, value in data.items():
        form = base64.b64encode(value).decode() if isinstance(value, (bytes, bytearray)) else value
        form = _escape_surrogates(form) if isinstance(form, str) else form
        size = len(form) if isinstance(form, str) else len(json.dumps(form, default=repr))
        if size > _MAX_DISPLAY_BYTES:
            left_out = max(left_out, size)
        else:
            forms[mime] = form
    if left_out:
        forms.setdefault("text/plain", f"[left out: {left_out} characters are more than can be shown]")
    return forms


def create_shell() -> Any:
    """Make the shell, before it is known where it will be."""
    os.environ["MPLBACKEND"] = _MATPLOTLIB_BACKEND
    shell: Any = _Shell.instance()
    shell.colors = "nocolor"
    shell.display_formatter.active_types = list(shell.display_formatter.formatters)
    return shell


def warm_up(shell: Any) -> None:
    """Do once what is slow the first time, so that the children of this process have it done."""
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
    """Run what the service sends until it hangs up."""
    _adapt_to_sandbox()
    CONNECTION.open(control)
    CONNECTION.send("ready", pid=os.getpid())
    signal.signal(signal.SIGINT, _InterruptHandler.record_pending)
    while request := CONNECTION.receive():
        _run(shell, request)
    os._exit(0)


def _adapt_to_sandbox() -> None:
    """Take the place at which this process now is."""
    sys.stdout, sys.stderr = _writer(1), _writer(2)
    _limit_memory()
    sys.path.insert(0, "")
    home = os.environ.get("HOME", "")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = f"{home}/.local/lib/{version}/site-packages"
    site.addsitedir(packages)
    os.environ.setdefault("PIP_TARGET", packages)  # this Python's own place for packages cannot be written to
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # or every child of the zygote would throw the same dice
    builtins.input = getpass.getpass = _reject_input
    warnings.filterwarnings("ignore", message="To exit: use 'exit'")  # IPython's advice after sys.exit()


def _writer(fd: int) -> TextIO:
    return open(fd, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)


def _limit_memory() -> None:
    """Take half of the machine at most: code that wants more sees a MemoryError, and nothing else is hurt."""
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
    """An interrupt is for the cell that runs; one that comes too late is for nobody."""

    _pending = False

    @classmethod
    @contextlib.contextmanager
    def enabled(cls) -> Iterator[None]:
        """Let an interrupt raise KeyboardInterrupt in here, whatever an earlier cell has made of the signal."""
        cls._pending = False
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, cls.record_pending)

    @classmethod
    @contextlib.contextmanager
    def deferred(cls) -> Iterator[None]:
        """Put an interrupt off, so that a frame is sent as a whole; signals come to the main thread alone."""
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
        """Remember an interrupt."""
        cls._pending = True


def _run(shell: Any, request: dict[str, Any]) -> None:
    os.environ.update(request["env"])
    importlib.invalidate_caches()  # for modules that were written, or installed, since
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
    traceback = _escape_surrogates(shell.pop_traceback())
    if error is not None:
        CONNECTION.send("error", name=type(error).__name__, value=_message(error), traceback=traceback)
    elif traceback:
        sys.stderr.write(traceback)
    CONNECTION.send("done", count=shell.execution_count - 1)


def main() -> NoReturn:
    """Be a program of its own."""
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    serve(create_shell(), control)


if __name__ == "__main__":
    main()
