"""Python kernels that are forked from a warm zygote; without one, or until it is ready, they are started cold."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from agentbay.local.kernels import languages
from agentbay.local.kernels.kernel import Kernel, KernelFailed
from agentbay.local.sandbox.service import zygote_process
from agentbay.local.sandbox.service.channel import Channel
from agentbay.local.sandbox.service.manager import Sandbox
from agentbay.local.sandbox.service.zygote_process import ZygoteProcess
from agentbay.local.sandbox.shared.ipc import Message

_logger = logging.getLogger(__name__)

_MODULE = "agentbay.local.kernels.zygote"
_ATTEMPTS = 3
_SIGKILL_EXIT_CODE = 137


class PythonKernelForker:
    """Starts Python kernels."""

    def __init__(self) -> None:
        self._zygote: ZygoteProcess | None = None
        self._channel: Channel | None = None
        self._ready = False
        self._attempts = 0
        self._numbers = itertools.count(1)
        self._kernels: dict[int, tuple[Kernel, asyncio.Future[int]]] = {}

    @property
    def ready(self) -> bool:
        """Whether kernels are forked from now on."""
        return self._ready

    def start_zygote(self) -> None:
        """Start the zygote in the background, if that was not done; it takes a second and 100 MiB."""
        if self._zygote is not None or self._attempts >= _ATTEMPTS or find_spec("IPython") is None:
            return
        self._attempts += 1
        self._zygote = zygote_process.start_zygote(_MODULE, (), _environment())
        self._channel = Channel(self._zygote.socket, self._on_message, self._on_disconnect)

    async def start(self, sandbox: Sandbox, env: Mapping[str, str]) -> Kernel:
        """Start a kernel in a sandbox."""
        self.start_zygote()
        if self._ready and sandbox.has_namespaces:
            try:
                return await self._fork(sandbox)
            except KernelFailed as failure:
                _logger.warning("no warm kernel: %s", failure)
        return await languages.start_python(sandbox, env)

    def close(self) -> None:
        """End the zygote; kernels go with their sandboxes."""
        self._attempts = _ATTEMPTS
        if self._channel is not None and self._zygote is not None:
            self._channel.close()
            self._zygote.stop()
        self._ready = False

    async def _fork(self, sandbox: Sandbox) -> Kernel:
        kernel = Kernel(sandbox)
        entry, namespaces = await sandbox.get_join_info()
        await kernel.connection.open()
        streams, kernel.connection.kernel_fds[:] = list(kernel.connection.kernel_fds), []
        number = next(self._numbers)
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._kernels[number] = kernel, ended
        entry["environment"] |= languages.PYTHON_ENVIRONMENT
        group = sandbox.watchdog.cgroup
        assert self._channel is not None
        self._channel.send(
            {"id": number, "entry": entry}, [*namespaces, *streams, *(group.open_procs_files() if group else [])]
        )
        await kernel.wait_until_ready(ended)
        return kernel

    def _on_message(self, message: Message, fds: list[int]) -> None:
        if message["event"] == "ready":
            self._ready = True
            return
        _, ended = self._kernels.pop(message["id"])
        if message["event"] == "exit":
            ended.set_result(message["code"])
        else:
            ended.set_exception(KernelFailed(message["detail"]))
            ended.exception()

    def _on_disconnect(self) -> None:
        assert self._zygote is not None
        _logger.warning("the zygote of Python kernels died: %s", self._zygote.stderr_text())
        self._zygote.stop()
        self._zygote, self._ready = None, False
        for kernel, ended in self._kernels.values():
            kernel.kill()  # nobody would hear of its end any more
            ended.set_result(_SIGKILL_EXIT_CODE)
        self._kernels.clear()


def _environment() -> dict[str, str]:
    """Where the zygote keeps its files; the list of fonts, which takes seconds to make, outlives it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "agentbay" / "matplotlib"
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        cache = Path(tempfile.mkdtemp(prefix="agentbay-matplotlib-"))
    return {"MPLCONFIGDIR": str(cache), "IPYTHONDIR": str(cache.with_name("ipython"))}
