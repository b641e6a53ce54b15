"""Terminals, over a session's WebSocket."""

from __future__ import annotations

import asyncio
import base64
import codecs
import contextlib
import os
import shlex
import signal
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from agentbay._wire.converter import structure, unstructure
from agentbay._wire.pty import (
    EXIT_EVENT,
    MAX_TERMINAL_SIZE,
    OUTPUT_EVENT,
    PTY_TARGET,
    PtyAnswer,
    PtyCreate,
    PtyEntry,
    PtyInput,
    PtyPush,
    PtyRef,
    PtyResize,
    decode_bytes,
)
from agentbay.errors import PtyError, PtySessionNotFoundError
from agentbay.local.handlers.dispatch import target_handler
from agentbay.local.ids import make_id
from agentbay.local.sandbox.service.manager import ResourceCreationFailed, Terminal
from agentbay.local.sessions.history import CommandHistory
from agentbay.local.sessions.hub import WebSocketHub, WebSocketRequest
from agentbay.local.sessions.session import Session
from agentbay.local.tail import last_pieces

_T = TypeVar("_T")

_MAX_TERMINALS = 64  # terminals of a session
_MAX_ENDED_TERMINALS = 16  # terminals whose program has ended
_SCROLLBACK_BYTES = 256 << 10  # bytes of output kept for who connects later
_OUTPUT_DELAY_SECONDS = 0.05  # seconds until a client that learns of its terminal from the answer is ready for output
_FINAL_OUTPUT_TIMEOUT_SECONDS = (
    0.2  # seconds for what a program has written before its end, while others still hold its terminal
)
_SHELLS = ("/bin/bash", "/bin/sh")
_LOCALE_PATHS = ("/usr/lib/locale/locale-archive", "/usr/lib/locale/en_US.utf8")


class PtyTerminal:
    """A terminal that lasts as long as the session: its program, its recent output, and whoever looks at it."""

    def __init__(self, hub: WebSocketHub, terminal: Terminal, cols: int, rows: int) -> None:
        self.id = make_id("pty-", 17)
        self.cols, self.rows = cols, rows
        self.exit_code: int | None = None
        self._killed = False
        self.terminal = terminal
        self._hub = hub
        self._scrollback: deque[bytes] = deque()
        self._scrollback_size = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._output_task: asyncio.Task[None] | None = None

    def start(self, pause: float, journal: CommandHistory, command: str) -> None:
        """Begin to pass on its output after so many seconds."""
        self._output_task = asyncio.create_task(self._run(pause, journal, command))

    def describe(self) -> PtyEntry:
        """Describe it."""
        status = "running" if self.exit_code is None else "exited"
        return PtyEntry(pty_session_id=self.id, cols=self.cols, rows=self.rows, status=status, exit_code=self.exit_code)

    def recent_output(self, size: int = _SCROLLBACK_BYTES) -> bytes:
        """Return the last of its output, at least `size` bytes if there are as many."""
        return b"".join(last_pieces(self._scrollback, size))

    def kill(self) -> None:
        """Kill it; its exit code is then what clients expect of that, -9."""
        self._killed = True
        self.terminal.kill()

    def close(self) -> None:
        """End it."""
        self.terminal.close()

    async def _run(self, pause: float, journal: CommandHistory, command: str) -> None:
        with journal.record("terminal", command) as entry:
            entry.set_output_source(lambda size: (self.recent_output(size), b""))
            await self._forward_output(pause)
            entry.set_result(exit_code=self.exit_code)

    async def _forward_output(self, pause: float) -> None:
        await asyncio.sleep(pause)
        reading = asyncio.create_task(self._read_all())
        await asyncio.wait({self.terminal.exited})
        await asyncio.wait({reading}, timeout=_FINAL_OUTPUT_TIMEOUT_SECONDS)
        self.terminal.close()
        await reading
        if self.terminal.exited.exception() is not None:  # the session has ended
            return
        code = self.terminal.exited.result()
        self.exit_code = -signal.SIGKILL if self._killed and code == 128 + signal.SIGKILL else code
        _remove_oldest_ended(self._hub)
        await self._push(PtyPush(event_type=EXIT_EVENT, pty_session_id=self.id, exit_code=self.exit_code))

    async def _read_all(self) -> None:
        while data := await self.terminal.read():
            self._append_scrollback(data)
            await self._push_output(data)
        await self._push_output(b"", final=True)

    def _append_scrollback(self, data: bytes) -> None:
        self._scrollback.append(data)
        self._scrollback_size += len(data)
        while self._scrollback_size - len(self._scrollback[0]) >= _SCROLLBACK_BYTES:
            self._scrollback_size -= len(self._scrollback.popleft())

    async def _push_output(self, data: bytes, *, final: bool = False) -> None:
        """Push output: as text, of which no character is cut in two, or if it is no text, as base64."""
        before = self._decoder.getstate()[0]
        try:
            encoding, text = "utf8", self._decoder.decode(data, final)
        except UnicodeDecodeError:
            self._decoder.reset()
            encoding, text = "base64", base64.b64encode(before + data).decode("ascii")
        if text:
            await self._push(PtyPush(event_type=OUTPUT_EVENT, pty_session_id=self.id, encoding=encoding, data=text))

    async def _push(self, push: PtyPush) -> None:
        await self._hub.broadcast(PTY_TARGET, unstructure(push))


@target_handler(PTY_TARGET)
async def handle_pty_request(session: Session, exchange: WebSocketRequest) -> None:
    """Do what is asked of the terminals of a session."""
    method = _METHODS.get(exchange.method)
    if method is None:
        raise PtyError(f"There is no method {exchange.method!r:.80}.")
    await method(session, exchange)


async def _create(session: Session, exchange: WebSocketRequest) -> None:
    wanted = _params(exchange, PtyCreate)
    _check_size(wanted.cols, wanted.rows)
    if sum(screen.exit_code is None for screen in _terminals(session.hub)) >= _MAX_TERMINALS:
        raise PtyError(f"A session can have {_MAX_TERMINALS} terminals at a time, not more.")
    try:
        argv = shlex.split(wanted.shell) if wanted.shell else [_default_shell()]
        env = {**session.environment, **_with_fallback_locale(wanted.envs)}
        with session.using() as sandbox:
            terminal = await sandbox.open_terminal(argv, cols=wanted.cols, rows=wanted.rows, cwd=wanted.cwd, env=env)
    except (ValueError, ResourceCreationFailed) as error:  # the first for a NUL, or quotes that do not match
        raise PtyError(str(error)) from error
    screen = PtyTerminal(session.hub, terminal, wanted.cols, wanted.rows)
    session.hub.resources[screen.id] = screen
    await _answer(exchange, PtyAnswer(pty_session_id=screen.id))
    screen.start(0.0 if wanted.listening else _OUTPUT_DELAY_SECONDS, session.history, shlex.join(argv))


async def _list(session: Session, exchange: WebSocketRequest) -> None:
    entries = [screen.describe() for screen in _terminals(session.hub)]
    running = [entry.pty_session_id for entry in entries if entry.exit_code is None]
    await _answer(exchange, PtyAnswer(pty_session_ids=running, pty_sessions=entries))


async def _connect(session: Session, exchange: WebSocketRequest) -> None:
    wanted = _params(exchange, PtyRef)
    screen = _find(session, wanted.pty_session_id)
    recent = screen.recent_output()
    if wanted.listening:
        replay = base64.b64encode(recent).decode("ascii")
        answer = PtyAnswer(pty_session_id=screen.id, replay=replay, exit_code=screen.exit_code)
        await _answer(exchange, answer)
        return
    exit_code = screen.exit_code
    await _answer(exchange, PtyAnswer(pty_session_id=screen.id))
    await asyncio.sleep(_OUTPUT_DELAY_SECONDS)
    if recent:
        encoded = base64.b64encode(recent).decode("ascii")
        push = PtyPush(event_type=OUTPUT_EVENT, pty_session_id=screen.id, encoding="base64", data=encoded)
        await exchange.push(unstructure(push))
    if exit_code is not None:
        await exchange.push(unstructure(PtyPush(event_type=EXIT_EVENT, pty_session_id=screen.id, exit_code=exit_code)))


async def _kill(session: Session, exchange: WebSocketRequest) -> None:
    screen = _find(session, _params(exchange, PtyRef).pty_session_id)
    if screen.exit_code is None:
        screen.kill()
    await _answer(exchange, PtyAnswer(pty_session_id=screen.id))


async def _input(session: Session, exchange: WebSocketRequest) -> None:
    wanted = _params(exchange, PtyInput)
    screen = _find(session, wanted.pty_session_id)
    if not screen.terminal.write_input(decode_bytes(wanted.encoding, wanted.data)):
        error = "Input was thrown away: the program does not read what waits for it already."
        await session.hub.broadcast(PTY_TARGET, {"eventType": "pty.warning", "ptySessionId": screen.id, "error": error})


async def _resize(session: Session, exchange: WebSocketRequest) -> None:
    wanted = _params(exchange, PtyResize)
    _check_size(wanted.cols, wanted.rows)
    screen = _find(session, wanted.pty_session_id)
    screen.terminal.resize(wanted.cols, wanted.rows)
    screen.cols, screen.rows = wanted.cols, wanted.rows


_METHODS: dict[str, Callable[[Session, WebSocketRequest], Awaitable[None]]] = {
    "pty.create": _create,
    "pty.list": _list,
    "pty.connect": _connect,
    "pty.kill": _kill,
    "pty.input": _input,
    "pty.resize": _resize,
}


def _params(exchange: WebSocketRequest, kind: type[_T]) -> _T:
    params: _T = structure(exchange.params, kind, path="params")
    return params


async def _answer(exchange: WebSocketRequest, answer: PtyAnswer) -> None:
    result: dict[str, Any] = unstructure(answer)
    await exchange.send_answer(result=result)


def _terminals(hub: WebSocketHub) -> list[PtyTerminal]:
    return [thing for thing in hub.resources.values() if isinstance(thing, PtyTerminal)]


def _find(session: Session, pty_session_id: str) -> PtyTerminal:
    screen = session.hub.resources.get(pty_session_id)
    if not isinstance(screen, PtyTerminal):
        raise PtySessionNotFoundError(f"PTY session not found: {pty_session_id!r:.80}")
    return screen


def _remove_oldest_ended(hub: WebSocketHub) -> None:
    ended = [screen for screen in _terminals(hub) if screen.exit_code is not None]
    for screen in ended[:-_MAX_ENDED_TERMINALS]:
        with contextlib.suppress(KeyError):
            del hub.resources[screen.id]


def _check_size(cols: int, rows: int) -> None:
    if not (1 <= cols <= MAX_TERMINAL_SIZE and 1 <= rows <= MAX_TERMINAL_SIZE):
        raise PtyError(f"Invalid terminal size: cols={cols}, rows={rows} (must be 1-{MAX_TERMINAL_SIZE})")


def _default_shell() -> str:
    return next((shell for shell in _SHELLS if os.access(shell, os.X_OK)), _SHELLS[-1])  # sessions show the host's /usr


def _with_fallback_locale(envs: dict[str, str]) -> dict[str, str]:
    """Replace the locale that clients ask for by default where this machine lacks it: without any, no UTF-8 works."""
    if envs.get("LANG") == "en_US.UTF-8" and not any(os.path.exists(path) for path in _LOCALE_PATHS):
        return {**envs, "LANG": "C.UTF-8"}
    return envs
