"""The life of a runtime process, from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing

from agentbay.errors import AgentBayError, ConfigurationError
from agentbay.local import listening, logs
from agentbay.local.lazy_imports import import_now
from agentbay.local.listening import ServerAddress
from agentbay.local.options import LOOPBACK_HOSTS, Options, missing_packages_message
from agentbay.local.sandbox.service.capability_probe import describe_exposure
from agentbay.local.sandbox.service.manager import SandboxError, SandboxManager
from agentbay.local.state_dir import StateDirectory
from agentbay.local.worker_thread import SWITCH_INTERVAL_SECONDS

_MIN_KEY_CHARACTERS = 16  # of a key that its user has chosen
_OPEN_FILES = 1 << 16  # that the runtime may have if the hard limit allows it
_PARTS_OF_THE_SERVICE = (
    "contexts.service",
    "images.service",
    "sessions.table",
    "handlers.sessions",
    "handlers.tool_actions",
    "handlers.shell",
    "http.web_server",
    "service",
)
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run(options: Options, key: str, *, parent_pipe: int | None = None) -> int:
    """Run a runtime until a signal ends it, and return the exit status.

    Args:
        key: The key that clients must show; for "", one is made and kept in the state directory.
        parent_pipe: A descriptor of a pipe from the parent process, whose end ends the runtime, too.
    """
    gc.disable()  # until it is ready: while modules load, there is no garbage, and collections take a tenth of the time
    logs.configure_logging(options.log_level, options.log_format)
    _raise_open_files_limit()
    _ignore_relative_homes()
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    if message := missing_packages_message():
        _print_error(message)
        return 1
    try:
        if not key and options.host not in LOOPBACK_HOSTS:
            raise ConfigurationError(
                f"--host {options.host} serves other machines, and needs a key that you have chosen.",
                hint="Set AGENTBAY_API_KEY.",
            )
        _check_key(options, key)
        with (
            closing(StateDirectory.open(options.state_dir)) as state_dir,
            listening.listen(options) as address,
            asyncio.Runner(loop_factory=_loop_factory()) as runner,
        ):
            runner.run(_serve(options, key or _stored_key(state_dir), state_dir, address, parent_pipe))
    except (AgentBayError, SandboxError) as error:
        _print_error(error)
        return 1
    return 0


def _check_key(options: Options, key: str) -> None:
    """Warn of a key that can be guessed, and refuse it for other machines."""
    if not key or len(key) >= _MIN_KEY_CHARACTERS:
        return
    message = f"The key has {len(key)} characters, so it can be guessed: it should have {_MIN_KEY_CHARACTERS} or more."
    if options.host not in LOOPBACK_HOSTS or options.published:  # other containers can connect, too
        raise ConfigurationError(message, hint="Make one: openssl rand -hex 32")
    if options.socket is None:  # only this user can open the socket
        _print_error(f"WARNING: {message}")


def _raise_open_files_limit() -> None:
    # The usual soft limit of 1024 is for programs that use select(). Sessions set limits of their own.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _ignore_relative_homes() -> None:
    # Caches would be made wherever the program happens to run; the XDG specification has relative paths ignored, too.
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        if not os.path.isabs(os.environ.get(name, "/")):
            del os.environ[name]


def _print_error(message: object) -> None:
    sys.stderr.write(f"{message}\n")


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
    options: Options, key: str, state_dir: StateDirectory, address: ServerAddress, parent_pipe: int | None
) -> None:
    stop, skip_drain, end_now = asyncio.Event(), asyncio.Event(), asyncio.Event()
    # The zygote starts in its own process while this one imports the rest of the service.
    isolation = "namespaces" if options.isolation == "auto" else options.isolation
    starting = asyncio.create_task(SandboxManager.start(isolation=isolation))
    await _import_service()
    from agentbay.local.outbound import destinations
    from agentbay.local.service import running_service, warm_up

    if risk := describe_exposure(options.isolation, options.session_network):
        _print_error(f"WARNING: {risk}")
    destinations.allow_hosts(options.storage_host)
    sandboxes = await starting
    try:
        with _stop_on_signals(stop, skip_drain, end_now, parent_pipe):
            running = running_service(sandboxes, state_dir, address, options, key, skip_drain, end_now)
            async with running as (dashboard, serving):
                _print_ready_line(address)
                # On a terminal, a person reads the login URL, and no log file keeps it.
                if sys.stderr.isatty() and address.port and parent_pipe is None:
                    _print_error(f"Its page, by this link once: {dashboard().make_login_url()}")
                    _print_error(f"For another link: agentbay local login --endpoint {address}")
                gc.freeze()  # what is loaded by now lasts: later collections need not look at it
                gc.enable()
                # Only after the ready line, for which the parent process waits.
                asyncio.get_running_loop().call_soon(warm_up)
                stopped = asyncio.create_task(stop.wait())
                await asyncio.wait([stopped, serving], return_when=asyncio.FIRST_COMPLETED)
                stopped.cancel()
    finally:
        await sandboxes.close()


async def _import_service() -> None:
    """Import the rest of the service while the zygote starts."""
    # In parts, between which the event loop hears of the zygote.
    for module in _PARTS_OF_THE_SERVICE:
        await asyncio.sleep(0)
        import_now(module)


def _print_ready_line(address: ServerAddress) -> None:
    with contextlib.suppress(
        BrokenPipeError
    ):  # the parent process has ended, and the end of its pipe will end this one
        sys.stdout.write(f"agentbay local ready at {address}\n")
        sys.stdout.flush()


@contextlib.contextmanager
def _stop_on_signals(
    stop: asyncio.Event, skip_drain: asyncio.Event, end_now: asyncio.Event, parent_pipe: int | None
) -> Iterator[None]:
    """Set `stop` at the first signal, `skip_drain` and `end_now` at the second.

    A third signal kills this process. The end of the parent's pipe sets the first two, since no client waits any more.
    """
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            skip_drain.set()
            end_now.set()
            for number in _STOP_SIGNALS:
                loop.remove_signal_handler(number)
        stop.set()

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    if parent_pipe is not None:
        loop.add_reader(parent_pipe, _on_parent_pipe, parent_pipe, stop, skip_drain)
    try:
        yield
    finally:
        if parent_pipe is not None:
            loop.remove_reader(parent_pipe)


def _on_parent_pipe(parent_pipe: int, *events: asyncio.Event) -> None:
    if not os.read(parent_pipe, 4096):
        asyncio.get_running_loop().remove_reader(parent_pipe)
        for event in events:
            event.set()
