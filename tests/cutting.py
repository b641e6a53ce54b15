"""A proxy that cuts connections in the middle of an answer."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import IO

KEY = "akm-cut"


class CuttingProxy:
    """Forwards bytes to a local port, and cuts after `cut_after` bytes.

    Where an answer names that port, it puts its own, of as many digits, so that all further ways lead through it.

    Args:
        of_requests: Count the bytes of requests instead; what exceeds the number is not passed on.
        for_good: Let nobody connect any more after the last cut.

    Attributes:
        port: Where it listens.
        cuts: How many times it has cut.
        passed: How many bytes it has counted.
    """

    def __init__(self, target: int, cut_after: list[int], *, of_requests: bool = False, for_good: bool = False) -> None:
        self._target, self._plan, self.passed, self.cuts = target, list(cut_after), 0, 0
        self._of_requests, self._for_good = of_requests, for_good
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut_in(self, size: int) -> None:
        """Cut the connection once more after so many bytes."""
        with self._lock:
            self._plan.append(self.passed + size)

    def cut(self) -> None:
        """Cut every open connection, while new ones can be made."""
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the proxy."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)
        for sock in self._sockets:
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [client, server]
            requests = self._of_requests
            for source, sink, counted in ((client, server, requests), (server, client, not requests)):
                thread = threading.Thread(target=self._pass, args=(source, sink, counted), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                data = data.replace(b":%d/" % self._target, b":%d/" % self.port)
                allowed = self._count(len(data)) if counted else len(data)
                sink.sendall(data[:allowed])
                if allowed < len(data):
                    self._break(source, sink)
                    return
            sink.shutdown(socket.SHUT_WR)

    def _break(self, *sockets: socket.socket) -> None:
        if self._for_good and not self._plan:
            sockets = (*self._sockets, self._listener)
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _count(self, size: int) -> int:
        """Count bytes and return how many of them pass."""
        with self._lock:
            before = self.passed
            self.passed += size
            if not self._plan or self.passed <= self._plan[0]:
                return size
            self.cuts += 1
            return max(self._plan.pop(0) - before, 0)


@contextlib.contextmanager
def runtime(*arguments: str, log: IO[str] | None = None) -> Iterator[int]:
    """Run a runtime with the key `KEY` and yield its port."""
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "agentbay.local", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        child.stdin.write(f"{KEY}\n")
        child.stdin.flush()
        yield int(child.stdout.readline().rstrip().rpartition(":")[2])
        child.stdin.close()
        assert child.wait(60) == 0
