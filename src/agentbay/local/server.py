"""A runtime from its start to its end: key, state, socket, sandboxes, service."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator

from agentbay.errors import ConfigurationError
from agentbay.local.options import Options, missing_packages
from agentbay.local.sandbox.host import SandboxError, SandboxHost
from agentbay.local.state_dir import StateDirectory

_LOOPBACK = "127.0.0.1"
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run(options: Options, key: str, *, lifeline: int | None = None) -> int:
    """Run a runtime until a signal, or the end of `lifeline`, ends it; return the exit status.

    Args:
        key: What clients must present; "" makes one, kept in the state directory.
        lifeline: A descriptor that says by its end that nobody needs the runtime any more.
    """
    gc.disable()  # until it is ready: collections while modules load find nothing and take a tenth of the start
    logging.basicConfig(level=options.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    if lack := missing_packages():
        _tell(lack)
        return 1
    try:
        state_dir = StateDirectory.open(options.state_dir)
        try:
            with _listen(options.port) as listener, asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(_serve(options, key or _kept_key(state_dir), state_dir, listener, lifeline))
        finally:
            state_dir.close()
    except (ConfigurationError, SandboxError) as error:
        _tell(error)
        return 1
    return 0


def _tell(what: object) -> None:
    sys.stderr.write(f"{what}\n")


def _kept_key(state_dir: StateDirectory) -> str:
    key, file = state_dir.key()
    _tell(f"The API key is in {file}")
    return key


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((_LOOPBACK, port), backlog=1024)
    except OSError as error:
        raise ConfigurationError(f"Port {port} of {_LOOPBACK} cannot be used: {error.strerror}.") from error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(
    options: Options, key: str, state_dir: StateDirectory, listener: socket.socket, lifeline: int | None
) -> None:
    stop = asyncio.Event()
    # Begun first: the zygote starts in a process of its own while this one imports the rest.
    starting = asyncio.create_task(SandboxHost.start(isolation=options.isolation))
    await asyncio.sleep(0)
    from agentbay.local import egress
    from agentbay.local.service import serving, warm_up

    egress.allow(options.storage_hosts)
    host = await starting
    try:
        async with serving(host, state_dir, listener, key=key, links=options.links) as working:
            with _stopped_by(stop, lifeline):
                _say_ready(listener)
                gc.freeze()
                gc.enable()
                asyncio.get_running_loop().call_soon(warm_up)
                stopped = asyncio.create_task(stop.wait())
                await asyncio.wait([stopped, working], return_when=asyncio.FIRST_COMPLETED)
                stopped.cancel()
    finally:
        await host.close()


def _say_ready(listener: socket.socket) -> None:
    with contextlib.suppress(BrokenPipeError):  # who started it is gone already, and its lifeline with it
        sys.stdout.write(f"agentbay local ready at http://{_LOOPBACK}:{listener.getsockname()[1]}\n")
        sys.stdout.flush()


@contextlib.contextmanager
def _stopped_by(stop: asyncio.Event, lifeline: int | None) -> Iterator[None]:
    """Set `stop` when a signal or the end of the lifeline asks for it."""
    loop = asyncio.get_running_loop()
    for number in _STOPPING:
        loop.add_signal_handler(number, stop.set)
    if lifeline is not None:
        loop.add_reader(lifeline, _on_lifeline, lifeline, stop)
    try:
        yield
    finally:
        if lifeline is not None:
            loop.remove_reader(lifeline)


def _on_lifeline(lifeline: int, stop: asyncio.Event) -> None:
    if not os.read(lifeline, 4096):
        asyncio.get_running_loop().remove_reader(lifeline)
        stop.set()
