"""A way to a runtime that breaks now and then: a proxy that cuts connections in the middle of an answer."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

KEY = "akm-cut"


class CuttingProxy:
    """Passes bytes on to a port of this machine; `cut_after` bytes of answers later, it resets the connection.

    Attributes:
        port: Where it listens.
        cuts: How many times it has cut.
    """

    def __init__(self, target: int, cut_after: list[int]) -> None:
        self._target, self._plan, self._passed, self.cuts = target, list(cut_after), 0, 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
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
            for source, sink, counted in ((client, server, False), (server, client, True)):
                thread = threading.Thread(target=self._pass, args=(source, sink, counted), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                if counted and self._is_due(len(data)):
                    for sock in (source, sink):
                        with contextlib.suppress(OSError):
                            sock.shutdown(socket.SHUT_RDWR)
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def _is_due(self, size: int) -> bool:
        with self._lock:
            self._passed += size
            if self._plan and self._passed >= self._plan[0]:
                del self._plan[0]
                self.cuts += 1
                return True
        return False


@contextlib.contextmanager
def runtime(*arguments: str) -> Iterator[int]:
    """A runtime of its own with the key `KEY`; yields its port."""
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "agentbay.local", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        child.stdin.write(f"{KEY}\n")
        child.stdin.flush()
        yield int(child.stdout.readline().rstrip().rpartition(":")[2])
        child.stdin.close()
        assert child.wait(20) == 0
