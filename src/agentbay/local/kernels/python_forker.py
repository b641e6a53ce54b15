"""Warm Python kernels: the service's side of the zygote that they are forked from."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from agentbay.local.kernels import languages
from agentbay.local.kernels.byte_budget import ByteBudget
from agentbay.local.kernels.kernel import Kernel, KernelFailed
from agentbay.local.sandbox.service import python_environment, zygote_process
from agentbay.local.sandbox.service.channel import Channel
from agentbay.local.sandbox.service.manager import ResourceCreationFailed, Sandbox, SandboxError
from agentbay.local.sandbox.service.zygote_process import ZygoteProcess
from agentbay.local.sandbox.shared import ipc
from agentbay.local.sandbox.shared.ipc import Message

_logger = logging.getLogger(__name__)

_MODULE = "agentbay.local.kernels.zygote"
_MAX_START_ATTEMPTS = 3  # of the zygote; after that, kernels are started as new processes
_MAX_ZYGOTE_START_SECONDS = 30.0
_MAX_REPORT_BYTES = 1 << 16
_SIGKILL_EXIT_CODE, _MAX_EXIT_CODE = 137, 256


class PythonKernelForker:
    """Starts Python kernels by a fork of the zygote.

    While there is no zygote, they are started as new processes.

    Args:
        fallback_cache: Holds the zygote's caches if this user's cache directory cannot be written.
    """

    def __init__(self, fallback_cache: Path) -> None:
        self._spare_directory = fallback_cache
        self._zygote: ZygoteProcess | None = None
        self._channel: Channel | None = None
        self._ready = False
        self._attempts = 0
        self._settled = asyncio.Event()  # the zygote is ready, or will not be

    @property
    def ready(self) -> bool:
        """Whether the next kernel will be forked."""
        return self._ready

    def start_zygote(self) -> None:
        """Start the zygote in the background, unless it runs.

        It takes a second and 100 MiB.
        """
        if self._zygote is not None or self._attempts >= _MAX_START_ATTEMPTS or find_spec("IPython") is None:
            if self._zygote is None:
                self._settled.set()
            return
        self._attempts += 1
        self._settled.clear()
        self._zygote = zygote_process.start_zygote(_MODULE, ())
        self._channel = Channel(self._zygote.socket, self._on_message, self._on_disconnect, _log_send_error)
        # not by its environment, which every kernel could read in /proc/self/environ
        self._channel.send(
            {
                "environment": _cache_environment(self._spare_directory),
                "package_directories": python_environment.package_directories(),
            }
        )

    async def start(self, sandbox: Sandbox, env: Mapping[str, str], budget: ByteBudget) -> Kernel:
        """Start a kernel in a sandbox.

        Raises:
            KernelFailed: It could not be started.
        """
        if sandbox.image and sandbox.image.python:
            return await languages.start_image_python(sandbox, env, budget)
        self.start_zygote()
        if sandbox.image:
            # A fork needs nothing of the image, while the interpreter may not start there.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._settled.wait(), _MAX_ZYGOTE_START_SECONDS)
        if self._ready and sandbox.has_namespaces:
            try:
                return await self._fork(sandbox, budget)
            except (KernelFailed, ResourceCreationFailed) as error:
                _logger.warning("no warm kernel: %s", error)
        return await languages.start_python(sandbox, env, budget)

    def close(self) -> None:
        """Stop the zygote, while kernels end with their sandboxes."""
        # A kernel that is requested during the shutdown must not start the zygote again.
        self._attempts = _MAX_START_ATTEMPTS
        if self._channel is not None and self._zygote is not None:
            self._channel.close()
            self._zygote.stop()
        self._ready = False

    async def _fork(self, sandbox: Sandbox, budget: ByteBudget) -> Kernel:
        kernel = Kernel(sandbox, budget)
        join_info, namespaces = await sandbox.get_join_info()
        await kernel.connection.open()
        streams, kernel.connection.kernel_fds[:] = list(kernel.connection.kernel_fds), []
        join_info["environment"] |= languages.python_environment(sandbox)
        link, zygote_link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds, group = [*namespaces, *streams], sandbox.watchdog.cgroup
        try:
            ipc.send(link, {"join_info": join_info}, fds)
            entrances = group.open_entrances() if group else []
        finally:
            _close_all(fds)
        assert self._channel is not None
        self._channel.send({}, [zygote_link.detach(), *entrances])
        watched = _KernelLink(link, kernel)
        try:
            await kernel.wait_until_ready(watched.ended)
        except BaseException:
            watched.close()  # at which the zygote kills the kernel
            kernel.connection.close()
            raise
        return kernel

    def _on_message(self, message: Message, fds: list[int]) -> None:
        _close_all(fds)
        self._ready = self._ready or message.get("event") == "ready"
        self._settled.set()

    def _on_disconnect(self) -> None:
        assert self._zygote is not None
        _logger.warning("the zygote of Python kernels died: %s", self._zygote.stderr_text())
        self._zygote.stop()
        self._zygote, self._ready = None, False
        self._settled.set()


def _log_send_error(message: Message, error: OSError) -> None:
    # the kernel's link is closed with the message, at which its start fails
    _logger.warning("the zygote of Python kernels could not be asked: %s", error)


class _KernelLink:
    """The socket by which the zygote reports on one kernel.

    The other end is held by the zygote and, until it joins the sandbox, by the process that forks the kernel. So a
    report is about this kernel only. Nothing but a few bytes is read from it.

    Attributes:
        ended: Gets the exit code of the kernel.
    """

    def __init__(self, link: socket.socket, kernel: Kernel) -> None:
        link.setblocking(False)
        self._link, self._kernel = link, kernel
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(link, self._read)

    def close(self) -> None:
        """Close the socket."""
        if self._link.fileno() >= 0:
            self._loop.remove_reader(self._link)
            self._link.close()

    def _read(self) -> None:
        try:
            report = self._link.recv(_MAX_REPORT_BYTES)
        except BlockingIOError:
            # The loop may wake a reader for nothing.
            return
        except ConnectionError:
            report = b""
        self.close()
        if not report:  # the zygote died, and nobody would hear of the kernel's exit any more
            with contextlib.suppress(SandboxError):
                self._kernel.kill()
            self.ended.set_result(_SIGKILL_EXIT_CODE)
            return
        match _parse_report(report):
            case {"code": int(code)} if -_MAX_EXIT_CODE < code < _MAX_EXIT_CODE:
                self.ended.set_result(code)
            case {"failure": str(reason)}:
                self._fail(reason)
            case _:
                self._fail("its report cannot be read")

    def _fail(self, reason: str) -> None:
        self.ended.set_exception(KernelFailed(reason))
        self.ended.exception()  # retrieved, so that asyncio does not log it


def _parse_report(report: bytes) -> object:
    try:
        return json.loads(report)
    except (ValueError, RecursionError):
        return None


def _cache_environment(fallback_cache: Path) -> dict[str, str]:
    """Return the variables for the zygote's caches.

    The list of fonts takes seconds to make, so it is kept for the next runtime where that is possible.
    """
    caches = fallback_cache
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: this user has no home
        usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "agentbay"
        (usual / "matplotlib").mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(usual / "matplotlib", os.W_OK):
            caches = usual
    return {"MPLCONFIGDIR": str(caches / "matplotlib"), "IPYTHONDIR": str(caches / "ipython")}


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
