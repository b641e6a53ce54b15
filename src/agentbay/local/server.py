"""A runtime from its start to its end: key, state, socket, sandboxes, service."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator

from agentbay.errors import AgentBayError, ConfigurationError
from agentbay.local import listening, logs
from agentbay.local.listening import ServerAddress
from agentbay.local.options import LOOPBACK_HOSTS, Options, missing_packages_message
from agentbay.local.sandbox.service.capability_probe import describe_exposure
from agentbay.local.sandbox.service.manager import SandboxError, SandboxManager
from agentbay.local.state_dir import StateDirectory

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run(options: Options, key: str, *, parent_pipe: int | None = None) -> int:
    """Run a runtime until a signal, or the end of `lifeline`, ends it; return the exit status.

    Args:
        key: What clients must present; "" makes one, kept in the state directory.
        lifeline: A descriptor that says by its end that nobody needs the runtime any more.
    """
    gc.disable()  # until it is ready: collections while modules load find nothing and take a tenth of the start
    logs.configure_logging(options.log_level, options.log_format)
    if lack := missing_packages_message():
        _print_error(lack)
        return 1
    try:
        if not key and options.host not in LOOPBACK_HOSTS:
            raise ConfigurationError(
                f"--host {options.host} serves other machines, and needs a key that you have chosen.",
                hint="Set AGENTBAY_API_KEY.",
            )
        state_dir = StateDirectory.open(options.state_dir)
        try:
            with listening.listen(options) as place, asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(_serve(options, key or _stored_key(state_dir), state_dir, place, parent_pipe))
        finally:
            state_dir.close()
    except (AgentBayError, SandboxError) as error:
        _print_error(error)
        return 1
    return 0


def _print_error(what: object) -> None:
    sys.stderr.write(f"{what}\n")


def _stored_key(state_dir: StateDirectory) -> str:
    key, file = state_dir.api_key()
    _print_error(f"The API key is in {file}")
    return key


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(
    options: Options, key: str, state_dir: StateDirectory, place: ServerAddress, parent_pipe: int | None
) -> None:
    stop, hurry = asyncio.Event(), asyncio.Event()
    # Begun first: the zygote starts in a process of its own while this one imports the rest.
    isolation = "namespaces" if options.isolation == "auto" else options.isolation
    starting = asyncio.create_task(SandboxManager.start(isolation=isolation))
    await asyncio.sleep(0)
    from agentbay.local.outbound import destinations
    from agentbay.local.service import running_service, warm_up

    if risk := describe_exposure(options.isolation, options.session_network):
        _print_error(f"WARNING: {risk}")
    destinations.allow_hosts(options.storage_host)
    host = await starting
    try:
        with _stop_on_signals(stop, hurry, parent_pipe):
            async with running_service(host, state_dir, place, options, key, hurry) as (dashboard, working):
                _print_ready_line(place)
                if sys.stderr.isatty() and place.port and parent_pipe is None:  # somebody reads it, and no log keeps it
                    _print_error(f"Its page, by this link once: {dashboard.make_login_url()}")
                    _print_error(f"For another link: agentbay local login --endpoint {place}")
                gc.freeze()
                gc.enable()
                asyncio.get_running_loop().call_soon(warm_up)
                stopped = asyncio.create_task(stop.wait())
                await asyncio.wait([stopped, working], return_when=asyncio.FIRST_COMPLETED)
                stopped.cancel()
    finally:
        await host.close()


def _print_ready_line(place: ServerAddress) -> None:
    with contextlib.suppress(BrokenPipeError):  # who started it is gone already, and its lifeline with it
        sys.stdout.write(f"agentbay local ready at {place}\n")
        sys.stdout.flush()


@contextlib.contextmanager
def _stop_on_signals(stop: asyncio.Event, skip_drain: asyncio.Event, lifeline: int | None) -> Iterator[None]:
    """Set `stop` when a signal asks for it, `hurry` with the second one; a third ends this process outright.

    The end of the lifeline sets both: nobody waits for answers any more.
    """
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            skip_drain.set()
            for number in _STOP_SIGNALS:
                loop.remove_signal_handler(number)
        stop.set()

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    if lifeline is not None:
        loop.add_reader(lifeline, _on_parent_pipe, lifeline, stop, skip_drain)
    try:
        yield
    finally:
        if lifeline is not None:
            loop.remove_reader(lifeline)


def _on_parent_pipe(lifeline: int, *ending: asyncio.Event) -> None:
    if not os.read(lifeline, 4096):
        asyncio.get_running_loop().remove_reader(lifeline)
        for event in ending:
            event.set()
