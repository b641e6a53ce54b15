"""Make sandboxes with a mark send nonsense, as if their code had taken over what the service runs in them.

The zygotes of `fuzzed_runtime.py` import this and call `patch`. A sandbox with the file `MARK` then sends the service
random messages, its file operations answer with random bytes, and so does the link of a kernel that is born there. The
file holds the seed.
"""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentbay.local.sandbox.inside import file_operations, tree_operations
from agentbay.local.sandbox.shared import ipc, tree_stream
from agentbay.local.sandbox.zygote import namespaces

MARK = "/tmp/fuzz"
EVENTS = ["exit", "descriptor", "join_info", "refused", "ready", "forked", "descriptors", "failed", "", "config"]
KEYS = ["event", "id", "code", "message", "join_info", "names", "pid", "step", "detail", "do"]

_generator: random.Random | None = None
_pid = 0
_ready_pid = 0


def patch() -> None:
    """Replace what sends from a sandbox."""
    real_send, real_reply = ipc.send, file_operations.write_reply
    real_write, real_join = file_operations.write_all, namespaces.join_namespaces

    def send(sock: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        global _ready_pid
        wild = _wild() if _ready_pid == os.getpid() else None  # before, none of the sandbox's code has run
        if message.get("event") == "ready":
            _ready_pid = os.getpid()
        if wild is None or wild.random() < 0.6:
            real_send(sock, message, fds)
        for _ in range(wild.randrange(4) if wild else 0):
            with suppress(OSError):
                _send_nonsense(wild, sock, message)

    def write_reply(output_fd: int, fields: dict[str, Any]) -> None:
        if (wild := _wild()) is None or wild.random() < 0.3:
            real_reply(output_fd, fields)
            return
        body = mutated(wild, json.dumps(wild.choice([fields, value(wild), {"failure": value(wild)}])).encode())
        length = wild.choice([len(body), 0, 1 << 63, wild.randrange(1 << 20)])
        with suppress(OSError):
            real_write(output_fd, body + length.to_bytes(8))

    def write(fd: int, data: bytes | bytearray | memoryview) -> None:
        wild = _wild()
        real_write(fd, mutated(wild, bytes(data)) if wild and wild.random() < 0.2 else data)

    def join_namespaces(*arguments: Any) -> None:
        real_join(*arguments)
        if wild := _wild():
            _send_nonsense_on_links(wild)

    namespaces.join_namespaces = join_namespaces
    ipc.send, file_operations.write_reply = send, write_reply
    for module in (file_operations, tree_stream, tree_operations):
        module.write_all = write


def _wild() -> random.Random | None:
    """Return the generator of a sandbox that is to send nonsense."""
    global _generator, _pid
    if _pid != os.getpid():
        _pid, _generator = os.getpid(), None
    if _generator is None:
        try:
            _generator = random.Random(f"{Path(MARK).read_text('ascii')} {_pid}")
        except OSError:
            return None
    return _generator


def _send_nonsense(wild: random.Random, sock: socket.socket, message: dict[str, Any]) -> None:
    fake = {wild.choice(KEYS): value(wild) for _ in range(wild.randrange(6))}
    fake |= {"event": wild.choice(EVENTS)} if wild.random() < 0.8 else {}
    fake |= {"id": wild.randrange(50)} if wild.random() < 0.8 else {}
    body = json.dumps(wild.choice([fake, {**message, **fake}, message, value(wild)])).encode()
    data = wild.choice([ipc.INLINE + body, ipc.INLINE + mutated(wild, body), ipc.ATTACHED, wild.randbytes(9), body])
    fds = [_descriptor(wild) for _ in range(wild.choice([0, 0, 1, 1, 2, 9, 20]))]
    try:
        ipc.send_datagram(sock, data[: 200 << 10], fds)
    finally:
        for fd in fds:
            os.close(fd)


def _send_nonsense_on_links(wild: random.Random) -> None:
    """Send nonsense from what will be the parent of a kernel, on the sockets of messages that it has."""
    for path in [*Path("/proc/self/fd").iterdir()]:
        with suppress(OSError), socket.socket(fileno=os.dup(int(path.name))) as sock:
            if sock.type == socket.SOCK_SEQPACKET:
                for _ in range(wild.randrange(3)):
                    report = {"code": value(wild), "failure": value(wild), "join_info": value(wild)}
                    body = json.dumps({key: report[key] for key in wild.sample([*report], wild.randrange(3))}).encode()
                    fds = [_descriptor(wild) for _ in range(wild.choice([0, 0, 1, 20]))]
                    try:
                        ipc.send_datagram(sock, mutated(wild, body)[: 200 << 10], fds)
                    finally:
                        for fd in fds:
                            os.close(fd)


def _descriptor(wild: random.Random) -> int:
    match wild.randrange(7):
        case 0:
            return os.open("/tmp", os.O_RDONLY)
        case 1:
            return os.open("/dev/zero", os.O_RDWR)
        case 2:
            reader, writer = os.pipe()
            os.close(writer)
            return reader
        case 3:
            return socket.socket(wild.choice([socket.AF_UNIX, socket.AF_INET]), socket.SOCK_STREAM).detach()
        case 4:
            return os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
        case 5:
            fd = os.memfd_create("unsealed")
            os.ftruncate(fd, wild.choice([10, 1 << 40]))
            return fd
        case _:
            return ipc.make_memfd(mutated(wild, json.dumps(value(wild)).encode()))


def value(wild: random.Random, depth: int = 3) -> Any:
    """Return a random JSON value."""
    texts = ["", "x" * 5000, "\ud800", "\0", "../..", "/"]
    leaves: list[Any] = [None, True, -1, 0, 1, 1 << 70, 1e308, float("nan"), *texts]
    kind = wild.randrange(8)
    if kind == 0 and depth:
        return [value(wild, depth - 1) for _ in range(wild.randrange(5))]
    if kind == 1 and depth:
        return {wild.choice([*KEYS, "path", "entries", "found", "size"]): value(wild, depth - 1) for _ in range(4)}
    if kind == 2 and depth:
        nested: Any = 1
        for _ in range(wild.choice([10, 900])):
            nested = [nested]
        return nested
    return wild.choice(leaves)


def mutated(wild: random.Random, data: bytes) -> bytes:
    """Return bytes with random changes."""
    changed = bytearray(data[: 1 << 20])
    for _ in range(wild.choice([0, 1, 1, 2, 8])):
        place = wild.randrange(len(changed) + 1)
        match wild.randrange(4):
            case 0:
                changed[place : place + 1] = wild.randbytes(1)
            case 1:
                del changed[place : place + wild.choice([1, 8, 1000])]
            case 2:
                changed[place:place] = wild.choice([wild.randbytes(8), b"[" * 2000, b'"', b"{", b"\xff\xff\xff\xff"])
            case _:
                del changed[place:]
    return bytes(changed)
