"""Pseudo-terminals (PTY), used over a session's WebSocket."""

from __future__ import annotations

import asyncio
import base64
import codecs
import contextlib
import os
import shlex
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from agentbay._wire import pty as wire
from agentbay._wire.converter import structure, unstructure
from agentbay.errors import PtyError, PtySessionNotFoundError
from agentbay.local.handlers.command_input import directory_failure
from agentbay.local.handlers.handler_tables import target_handler
from agentbay.local.ids import make_id
from agentbay.local.sandbox.service.manager import DirectoryNotEntered, ResourceCreationFailed, Sandbox, Terminal
from agentbay.local.sessions.history import CommandHistory
from agentbay.local.sessions.hub import WebSocketHub, WebSocketRequest
from agentbay.local.sessions.session import Session
from agentbay.local.tail import last_pieces

_T = TypeVar("_T")

_MAX_TERMINALS = 64  # of one session, with a running program
_MAX_ENDED_TERMINALS = 16  # kept after their program has ended
_SCROLLBACK_BYTES = 256 << 10  # output kept for clients that connect later
_OUTPUT_DELAY_SECONDS = 0.25  # for clients that listen only once the answer has told them of their terminal
_FINAL_OUTPUT_TIMEOUT_SECONDS = 0.2  # for the last output, if other processes still hold the terminal
_INPUT_TIMEOUT_SECONDS = 20.0  # for a program to read; clients wait for the answer a little longer
_SHELLS = ("/bin/bash", "/bin/sh")
_LOCALE_PATHS = ("/usr/lib/locale/locale-archive", "/usr/lib/locale/en_US.utf8")


class PtyTerminal:
    """A terminal with its scrollback, which outlives connections and ends with the session."""

    def __init__(self, hub: WebSocketHub, terminal: Terminal, cols: int, rows: int) -> None:
        self.id = make_id("pty-", 17)
        self.cols, self.rows = cols, rows
        self.exit_code: int | None = None
        self._killed = False
        self.backend = terminal
        self._hub = hub
        self._scrollback: deque[bytes] = deque()
        self._scrollback_size = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._output_task: asyncio.Task[None] | None = None

    def start(self, pause: float, history: CommandHistory, command: str) -> None:
        """Forward its output to all clients, after `pause` seconds."""
        self._output_task = asyncio.create_task(self._run(pause, history, command))

    def describe(self) -> wire.PtyEntry:
        """Describe it as the wire has it."""
        status = "running" if self.exit_code is None else "exited"
        return wire.PtyEntry(
            pty_session_id=self.id, cols=self.cols, rows=self.rows, status=status, exit_code=self.exit_code
        )

    def recent_output(self, size: int = _SCROLLBACK_BYTES) -> bytes:
        """Return the last `size` bytes of its output, or some more."""
        return b"".join(last_pieces(self._scrollback, size))

    def kill(self) -> None:
        """Kill its program, whose exit code is then -9, as clients expect."""
        self._killed = True
        self.backend.kill()

    def close(self) -> None:
        """Hang up, which ends its program."""
        self.backend.close()

    async def _run(self, pause: float, history: CommandHistory, command: str) -> None:
        with history.record("terminal", command) as entry:
            entry.set_output_source(lambda size: (self.recent_output(size), b""))
            await self._forward_output(pause)
            entry.set_result(exit_code=self.exit_code)

    async def _forward_output(self, pause: float) -> None:
        await asyncio.sleep(pause)
        reading = asyncio.create_task(self._read_all())
        await asyncio.wait({self.backend.exited})
        await asyncio.wait({reading}, timeout=_FINAL_OUTPUT_TIMEOUT_SECONDS)
        self.backend.close()
        await reading
        if self.backend.exited.exception() is not None:  # the session has ended
            return
        code = self.backend.exited.result()
        self.exit_code = -signal.SIGKILL if self._killed and code == 128 + signal.SIGKILL else code
        _remove_oldest_ended(self._hub)
        await self._push(wire.PtyPush(event_type=wire.EXIT_EVENT, pty_session_id=self.id, exit_code=self.exit_code))

    async def _read_all(self) -> None:
        while data := await self.backend.read():
            self._append_scrollback(data)
            await self._push_output(data)
        await self._push_output(b"", final=True)

    def _append_scrollback(self, data: bytes) -> None:
        self._scrollback.append(data)
        self._scrollback_size += len(data)
        while self._scrollback_size - len(self._scrollback[0]) >= _SCROLLBACK_BYTES:
            self._scrollback_size -= len(self._scrollback.popleft())

    async def _push_output(self, data: bytes, *, final: bool = False) -> None:
        """Push output as whole characters, or as base64 if it is not UTF-8."""
        before = self._decoder.getstate()[0]
        try:
            encoding, text = "utf8", self._decoder.decode(data, final)
        except UnicodeDecodeError:
            self._decoder.reset()
            encoding, text = "base64", base64.b64encode(before + data).decode("ascii")
        if text:
            await self._push(
                wire.PtyPush(event_type=wire.OUTPUT_EVENT, pty_session_id=self.id, encoding=encoding, data=text)
            )

    async def _push(self, push: wire.PtyPush) -> None:
        await self._hub.broadcast(wire.PTY_TARGET, unstructure(push))


@target_handler(wire.PTY_TARGET)
async def handle_pty_request(session: Session, request: WebSocketRequest) -> None:
    """Create, list, use and kill terminals of a session."""
    method = _METHODS.get(request.method)
    if method is None:
        raise PtyError(f"There is no method {request.method!r:.80}.")
    await method(session, request)


async def _create(session: Session, request: WebSocketRequest) -> None:
    params = _params(request, wire.PtyCreate)
    _check_size(params.cols, params.rows)
    if sum(terminal.exit_code is None for terminal in _terminals(session.hub)) >= _MAX_TERMINALS:
        raise PtyError(f"A session can have {_MAX_TERMINALS} terminals at a time, not more.")
    try:
        argv, opened = await _open(session, params)
    except DirectoryNotEntered as error:
        raise PtyError(directory_failure(error)[0]) from error
    except (ValueError, ResourceCreationFailed) as error:  # the first for a NUL, or quotes that do not match
        raise PtyError(str(error)) from error
    terminal = PtyTerminal(session.hub, opened, params.cols, params.rows)
    session.hub.resources[terminal.id] = terminal
    # Answered before the terminal starts, or output could arrive before the client knows the terminal's id.
    await _answer(request, wire.PtyAnswer(pty_session_id=terminal.id, acknowledges_input=params.listening))
    terminal.start(0.0 if params.listening else _OUTPUT_DELAY_SECONDS, session.history, shlex.join(argv))


async def _open(session: Session, params: wire.PtyCreate) -> tuple[list[str], Terminal]:
    """Open a terminal, and return what runs in it."""
    env = {**session.environment, **_with_fallback_locale(params.envs)}
    with session.using() as sandbox:
        choices = [shlex.split(params.shell)] if params.shell else [[shell] for shell in _shells(sandbox)]
        for number, argv in enumerate(choices, 1):
            try:
                opened = await sandbox.open_terminal(
                    argv, cols=params.cols, rows=params.rows, cwd=params.cwd, env=env, echo=params.echo is not False
                )
            except DirectoryNotEntered:
                raise
            except ResourceCreationFailed:
                if number == len(choices):
                    raise
            else:
                return argv, opened
    raise PtyError("The image of this session has no shell (/bin/sh): name a program and its arguments.")


async def _list(session: Session, request: WebSocketRequest) -> None:
    entries = [terminal.describe() for terminal in _terminals(session.hub)]
    running = [entry.pty_session_id for entry in entries if entry.exit_code is None]
    await _answer(request, wire.PtyAnswer(pty_session_ids=running, pty_sessions=entries))


async def _connect(session: Session, request: WebSocketRequest) -> None:
    params = _params(request, wire.PtyRef)
    terminal = _find(session, params.pty_session_id)
    recent = terminal.recent_output()
    if params.listening:
        replay = base64.b64encode(recent).decode("ascii")
        answer = wire.PtyAnswer(
            pty_session_id=terminal.id, replay=replay, exit_code=terminal.exit_code, acknowledges_input=True
        )
        await _answer(request, answer)
        return
    # Like `recent`, read before the first await: what comes later is broadcast, and would arrive twice.
    exit_code = terminal.exit_code
    await _answer(request, wire.PtyAnswer(pty_session_id=terminal.id))
    await asyncio.sleep(_OUTPUT_DELAY_SECONDS)
    if recent:
        encoded = base64.b64encode(recent).decode("ascii")
        push = wire.PtyPush(event_type=wire.OUTPUT_EVENT, pty_session_id=terminal.id, encoding="base64", data=encoded)
        await request.push(unstructure(push))
    if exit_code is not None:
        await request.push(
            unstructure(wire.PtyPush(event_type=wire.EXIT_EVENT, pty_session_id=terminal.id, exit_code=exit_code))
        )


async def _kill(session: Session, request: WebSocketRequest) -> None:
    terminal = _find(session, _params(request, wire.PtyRef).pty_session_id)
    if terminal.exit_code is None:
        terminal.kill()
    await _answer(request, wire.PtyAnswer(pty_session_id=terminal.id))


async def _input(session: Session, request: WebSocketRequest) -> None:
    params = _params(request, wire.PtyInput)
    terminal = _find(session, params.pty_session_id)
    data = wire.decode_bytes(params.encoding, params.data)
    if params.acknowledge:
        if terminal.exit_code is not None:
            raise PtyError("The program has ended, so it takes no input.")
        if not await terminal.backend.write_input_in_time(data, _INPUT_TIMEOUT_SECONDS):
            raise PtyError("The program does not read its input: what was sent last was not taken.")
        await _answer(request, wire.PtyAnswer(pty_session_id=terminal.id))
    elif not terminal.backend.write_input(data):
        error = "Input was thrown away: the program does not read what waits for it already."
        await session.hub.broadcast(
            wire.PTY_TARGET, {"eventType": "pty.warning", "ptySessionId": terminal.id, "error": error}
        )


async def _resize(session: Session, request: WebSocketRequest) -> None:
    params = _params(request, wire.PtyResize)
    _check_size(params.cols, params.rows)
    terminal = _find(session, params.pty_session_id)
    terminal.backend.resize(params.cols, params.rows)
    terminal.cols, terminal.rows = params.cols, params.rows


_METHODS: dict[str, Callable[[Session, WebSocketRequest], Awaitable[None]]] = {
    "pty.create": _create,
    "pty.list": _list,
    "pty.connect": _connect,
    "pty.kill": _kill,
    "pty.input": _input,
    "pty.resize": _resize,
}


def _params(request: WebSocketRequest, kind: type[_T]) -> _T:
    params: _T = structure(request.params, kind, path="params")
    return params


async def _answer(request: WebSocketRequest, answer: wire.PtyAnswer) -> None:
    result: dict[str, Any] = unstructure(answer)
    await request.send_answer(result=result)


def _terminals(hub: WebSocketHub) -> list[PtyTerminal]:
    return [thing for thing in hub.resources.values() if isinstance(thing, PtyTerminal)]


def _find(session: Session, pty_session_id: str) -> PtyTerminal:
    terminal = session.hub.resources.get(pty_session_id)
    if not isinstance(terminal, PtyTerminal):
        raise PtySessionNotFoundError(f"PTY session not found: {pty_session_id!r:.80}")
    return terminal


def _remove_oldest_ended(hub: WebSocketHub) -> None:
    ended = [terminal for terminal in _terminals(hub) if terminal.exit_code is not None]
    for terminal in ended[:-_MAX_ENDED_TERMINALS]:
        with contextlib.suppress(KeyError):
            del hub.resources[terminal.id]


def _check_size(cols: int, rows: int) -> None:
    if not (1 <= cols <= wire.MAX_TERMINAL_SIZE and 1 <= rows <= wire.MAX_TERMINAL_SIZE):
        raise PtyError(f"Invalid terminal size: cols={cols}, rows={rows} (must be 1-{wire.MAX_TERMINAL_SIZE})")


def _shells(sandbox: Sandbox) -> Sequence[str]:
    """Return the shells to try, the best first."""
    if sandbox.image is not None:
        return _SHELLS if sandbox.has_shell else ()
    return [shell for shell in _SHELLS if os.access(shell, os.X_OK)] or _SHELLS[-1:]  # sessions show the host's /usr


def _with_fallback_locale(envs: dict[str, str]) -> dict[str, str]:
    # Clients ask for en_US.UTF-8 by default. Where this machine lacks it, programs would fall back to ASCII.
    if envs.get("LANG") == "en_US.UTF-8" and not any(os.path.exists(path) for path in _LOCALE_PATHS):
        return {**envs, "LANG": "C.UTF-8"}
    return envs
