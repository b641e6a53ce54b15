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
    EXIT,
    LARGEST,
    OUTPUT,
    TARGET,
    PtyAnswer,
    PtyCreate,
    PtyEntry,
    PtyInput,
    PtyPush,
    PtyRef,
    PtyResize,
    to_bytes,
)
from agentbay.errors import PtyError, PtySessionNotFoundError
from agentbay.local.dispatch import serves
from agentbay.local.hub import Exchange, Hub
from agentbay.local.journal import Journal, last
from agentbay.local.sandbox.host import NotGiven, Terminal
from agentbay.local.session import Session, make_id

_T = TypeVar("_T")

_MOST = 64  # terminals of a session
_REMEMBERED = 16  # terminals whose program has ended
_SCROLLBACK = 256 << 10  # bytes of output kept for who connects later
_MOMENT = 0.05  # seconds until a client that learns of its terminal from the answer is ready for output
_LAST_OUTPUT = 0.2  # seconds for what a program has written before its end, while others still hold its terminal
_SHELLS = ("/bin/bash", "/bin/sh")
_LOCALES = ("/usr/lib/locale/locale-archive", "/usr/lib/locale/en_US.utf8")


class Screen:
    """A terminal that lasts as long as the session: its program, its recent output, and whoever looks at it."""

    def __init__(self, hub: Hub, terminal: Terminal, cols: int, rows: int) -> None:
        self.id = make_id("pty-", 17)
        self.cols, self.rows = cols, rows
        self.exit_code: int | None = None
        self._killed = False
        self.terminal = terminal
        self._hub = hub
        self._recent: deque[bytes] = deque()
        self._kept = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._pump: asyncio.Task[None] | None = None

    def start(self, pause: float, journal: Journal, command: str) -> None:
        """Begin to pass on its output after so many seconds."""
        self._pump = asyncio.create_task(self._record(pause, journal, command))

    def entry(self) -> PtyEntry:
        """Describe it."""
        status = "running" if self.exit_code is None else "exited"
        return PtyEntry(pty_session_id=self.id, cols=self.cols, rows=self.rows, status=status, exit_code=self.exit_code)

    def recent(self, size: int = _SCROLLBACK) -> bytes:
        """Return the last of its output, at least `size` bytes if there are as many."""
        return b"".join(last(self._recent, size))

    def kill(self) -> None:
        """Kill it; its exit code is then what clients expect of that, -9."""
        self._killed = True
        self.terminal.kill()

    def close(self) -> None:
        """End it."""
        self.terminal.close()

    async def _record(self, pause: float, journal: Journal, command: str) -> None:
        with journal.record("terminal", command) as entry:
            entry.follow(lambda size: (self.recent(size), b""))
            await self._pass_on(pause)
            entry.end(exit_code=self.exit_code)

    async def _pass_on(self, pause: float) -> None:
        await asyncio.sleep(pause)
        reading = asyncio.create_task(self._read_all())
        await asyncio.wait({self.terminal.exited})
        await asyncio.wait({reading}, timeout=_LAST_OUTPUT)
        self.terminal.close()
        await reading
        if self.terminal.exited.exception() is not None:  # the session has ended
            return
        code = self.terminal.exited.result()
        self.exit_code = -signal.SIGKILL if self._killed and code == 128 + signal.SIGKILL else code
        _forget_oldest(self._hub)
        await self._push(PtyPush(event_type=EXIT, pty_session_id=self.id, exit_code=self.exit_code))

    async def _read_all(self) -> None:
        while data := await self.terminal.read():
            self._keep(data)
            await self._say(data)
        await self._say(b"", final=True)

    def _keep(self, data: bytes) -> None:
        self._recent.append(data)
        self._kept += len(data)
        while self._kept - len(self._recent[0]) >= _SCROLLBACK:
            self._kept -= len(self._recent.popleft())

    async def _say(self, data: bytes, *, final: bool = False) -> None:
        """Push output: as text, of which no character is cut in two, or if it is no text, as base64."""
        before = self._decoder.getstate()[0]
        try:
            encoding, text = "utf8", self._decoder.decode(data, final)
        except UnicodeDecodeError:
            self._decoder.reset()
            encoding, text = "base64", base64.b64encode(before + data).decode("ascii")
        if text:
            await self._push(PtyPush(event_type=OUTPUT, pty_session_id=self.id, encoding=encoding, data=text))

    async def _push(self, push: PtyPush) -> None:
        await self._hub.push(TARGET, unstructure(push))


@serves(TARGET)
async def pty(session: Session, exchange: Exchange) -> None:
    """Do what is asked of the terminals of a session."""
    method = _METHODS.get(exchange.method)
    if method is None:
        raise PtyError(f"There is no method {exchange.method!r:.80}.")
    await method(session, exchange)


async def _create(session: Session, exchange: Exchange) -> None:
    wanted = _params(exchange, PtyCreate)
    _check_size(wanted.cols, wanted.rows)
    if sum(screen.exit_code is None for screen in _screens(session.hub)) >= _MOST:
        raise PtyError(f"A session can have {_MOST} terminals at a time, not more.")
    try:
        argv = shlex.split(wanted.shell) if wanted.shell else [_own_shell()]
        terminal = await session.open_terminal(
            argv, cols=wanted.cols, rows=wanted.rows, cwd=wanted.cwd, env=_environment(wanted.envs)
        )
    except (ValueError, NotGiven) as error:  # the first for a NUL, or quotes that do not match
        raise PtyError(str(error)) from error
    screen = Screen(session.hub, terminal, wanted.cols, wanted.rows)
    session.hub.lasting[screen.id] = screen
    await _answer(exchange, PtyAnswer(pty_session_id=screen.id))
    screen.start(0.0 if wanted.listening else _MOMENT, session.journal, shlex.join(argv))


async def _list(session: Session, exchange: Exchange) -> None:
    entries = [screen.entry() for screen in _screens(session.hub)]
    running = [entry.pty_session_id for entry in entries if entry.exit_code is None]
    await _answer(exchange, PtyAnswer(pty_session_ids=running, pty_sessions=entries))


async def _connect(session: Session, exchange: Exchange) -> None:
    wanted = _params(exchange, PtyRef)
    screen = _find(session, wanted.pty_session_id)
    recent = screen.recent()
    if wanted.listening:
        replay = base64.b64encode(recent).decode("ascii")
        answer = PtyAnswer(pty_session_id=screen.id, replay=replay, exit_code=screen.exit_code)
        await _answer(exchange, answer)
        return
    exit_code = screen.exit_code
    await _answer(exchange, PtyAnswer(pty_session_id=screen.id))
    await asyncio.sleep(_MOMENT)
    if recent:
        encoded = base64.b64encode(recent).decode("ascii")
        push = PtyPush(event_type=OUTPUT, pty_session_id=screen.id, encoding="base64", data=encoded)
        await exchange.push(unstructure(push))
    if exit_code is not None:
        await exchange.push(unstructure(PtyPush(event_type=EXIT, pty_session_id=screen.id, exit_code=exit_code)))


async def _kill(session: Session, exchange: Exchange) -> None:
    screen = _find(session, _params(exchange, PtyRef).pty_session_id)
    if screen.exit_code is None:
        screen.kill()
    await _answer(exchange, PtyAnswer(pty_session_id=screen.id))


async def _input(session: Session, exchange: Exchange) -> None:
    wanted = _params(exchange, PtyInput)
    screen = _find(session, wanted.pty_session_id)
    if not screen.terminal.type(to_bytes(wanted.encoding, wanted.data)):
        error = "Input was thrown away: the program does not read what waits for it already."
        await session.hub.push(TARGET, {"eventType": "pty.warning", "ptySessionId": screen.id, "error": error})


async def _resize(session: Session, exchange: Exchange) -> None:
    wanted = _params(exchange, PtyResize)
    _check_size(wanted.cols, wanted.rows)
    screen = _find(session, wanted.pty_session_id)
    screen.terminal.resize(wanted.cols, wanted.rows)
    screen.cols, screen.rows = wanted.cols, wanted.rows


_METHODS: dict[str, Callable[[Session, Exchange], Awaitable[None]]] = {
    "pty.create": _create,
    "pty.list": _list,
    "pty.connect": _connect,
    "pty.kill": _kill,
    "pty.input": _input,
    "pty.resize": _resize,
}


def _params(exchange: Exchange, kind: type[_T]) -> _T:
    params: _T = structure(exchange.params, kind, path="params")
    return params


async def _answer(exchange: Exchange, answer: PtyAnswer) -> None:
    result: dict[str, Any] = unstructure(answer)
    await exchange.answer(result=result)


def _screens(hub: Hub) -> list[Screen]:
    return [thing for thing in hub.lasting.values() if isinstance(thing, Screen)]


def _find(session: Session, pty_session_id: str) -> Screen:
    screen = session.hub.lasting.get(pty_session_id)
    if not isinstance(screen, Screen):
        raise PtySessionNotFoundError(f"PTY session not found: {pty_session_id!r:.80}")
    return screen


def _forget_oldest(hub: Hub) -> None:
    ended = [screen for screen in _screens(hub) if screen.exit_code is not None]
    for screen in ended[:-_REMEMBERED]:
        with contextlib.suppress(KeyError):
            del hub.lasting[screen.id]


def _check_size(cols: int, rows: int) -> None:
    if not (1 <= cols <= LARGEST and 1 <= rows <= LARGEST):
        raise PtyError(f"Invalid terminal size: cols={cols}, rows={rows} (must be 1-{LARGEST})")


def _own_shell() -> str:
    return next((shell for shell in _SHELLS if os.access(shell, os.X_OK)), _SHELLS[-1])  # sessions show the host's /usr


def _environment(envs: dict[str, str]) -> dict[str, str]:
    """Replace the locale that clients ask for by default where this machine lacks it: without any, no UTF-8 works."""
    if envs.get("LANG") == "en_US.UTF-8" and not any(os.path.exists(path) for path in _LOCALES):
        return {**envs, "LANG": "C.UTF-8"}
    return envs
