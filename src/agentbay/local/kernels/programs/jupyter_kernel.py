"""A kernel of Jupyter's, whatever its language: translates between its messages and the frames of this package.

It runs inside the sandbox, and so does the kernel, which it starts and reaches through Unix sockets. Frames are as for
the Python kernel. Descriptor 0 is the socket at first.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import sys
import tempfile
from subprocess import DEVNULL
from typing import Any, NoReturn

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from jupyter_client.manager import AsyncKernelManager

_START_TIMEOUT_SECONDS = 55.0  # seconds to start
_PR_SET_PDEATHSIG = 1
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class JupyterBridge:
    """The kernel, and the socket to the service."""

    def __init__(self, spec: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        directory = tempfile.mkdtemp(prefix="jupyter-")
        self._manager = AsyncKernelManager(
            kernel_name=spec, transport="ipc", connection_file=f"{directory}/connection.json"
        )
        self._client: AsyncKernelClient
        self._execution_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it, and return when it can run code."""
        # what it writes there comes as messages too, or is for nobody
        await self._manager.start_kernel(preexec_fn=_die_with_parent, stdout=DEVNULL, stderr=DEVNULL)
        self._client = self._manager.client()
        self._client.start_channels()
        await self._client.wait_for_ready(timeout=_START_TIMEOUT_SECONDS)
        self.send("ready", pid=os.getpid())

    async def serve(self) -> NoReturn:
        """Do what the service asks until it hangs up, or the kernel dies."""
        ended = asyncio.create_task(self._exit_with_kernel())
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                size = int.from_bytes(await self._reader.readexactly(4), "little")
                request = json.loads(await self._reader.readexactly(size))
                if "interrupt" in request:
                    await self._manager.interrupt_kernel()
                else:
                    self._execution_task = asyncio.create_task(self._run(request["code"]))
        ended.cancel()
        await self._manager.shutdown_kernel(now=True)
        os._exit(0)

    def send(self, event: str, **facts: Any) -> None:
        """Send a frame."""
        body = json.dumps({"event": event, **facts}).encode()
        self._writer.write(len(body).to_bytes(4, "little") + body)

    async def _exit_with_kernel(self) -> NoReturn:
        assert self._manager.provisioner is not None
        code = await self._manager.provisioner.wait() or 0
        await self._writer.drain()
        if code < 0:
            signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
            os.kill(os.getpid(), -code)
        os._exit(code)

    async def _run(self, code: str) -> None:
        request = self._client.execute(code, store_history=True, allow_stdin=False)
        failed = False
        while True:
            message = await self._client.get_iopub_msg()
            kind, content, own = message["msg_type"], message["content"], _is_reply_to(message, request)
            if kind == "status" and own and content["execution_state"] == "idle":
                break
            failed = failed or (kind == "error" and own)
            self._forward_message(kind, content)
        reply = await self._client.get_shell_msg()
        while not _is_reply_to(reply, request):
            reply = await self._client.get_shell_msg()
        if reply["content"]["status"] != "ok" and not failed:
            self._forward_message(
                "error", {"ename": "KernelError", "evalue": f"the kernel says {reply['content']['status']}"}
            )
        self.send("done", count=reply["content"].get("execution_count"))

    def _forward_message(self, kind: str, content: dict[str, Any]) -> None:
        display = content.get("transient", {}).get("display_id")
        match kind:
            case "stream":
                _write(1 if content["name"] == "stdout" else 2, content["text"])
            case "execute_result":
                self.send("result", data=content["data"], main=True, display=display)
            case "display_data" | "update_display_data":
                update = kind == "update_display_data"
                self.send("result", data=content["data"], main=False, display=display, update=update)
            case "clear_output":
                self.send("clear")
            case "error":
                lines = "\n".join(content.get("traceback", []))
                traceback = _COLOURS.sub("", f"{lines}\n" if lines else "")
                self.send("error", name=content["ename"] or "Error", value=content["evalue"], traceback=traceback)
            case _:  # of no interest here: what runs, what is busy
                pass


def _is_reply_to(message: dict[str, Any], request: str) -> bool:
    return bool(message["parent_header"].get("msg_id") == request)


def _write(fd: int, text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")
    while data:
        data = data[os.write(fd, data) :]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _explain(spec: str, error: BaseException) -> str:
    if isinstance(error, NoSuchKernel):
        manager = KernelSpecManager()
        found = ", ".join(sorted(manager.find_kernel_specs())) or "none"
        places = ", ".join(manager.kernel_dirs)
        return f"there is no kernelspec {spec!r} inside the session, there are: {found}. It is looked for in {places}"
    if isinstance(error, FileNotFoundError):
        return f"the kernelspec {spec!r} starts a program that is not there inside the session: {error.filename}"
    command = " ".join(KernelSpecManager().get_kernel_spec(spec).argv)
    return f"the kernelspec {spec!r} gives no kernel that answers: {error}. Run in the session to see why: {command}"


async def main(spec: str) -> None:
    """Start the kernel of a kernelspec, and serve."""
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    reader, writer = await asyncio.open_unix_connection(sock=control, limit=1 << 26)
    try:
        kernel = JupyterBridge(spec, reader, writer)
        await kernel.start()
    except (NoSuchKernel, OSError, RuntimeError) as error:
        body = json.dumps({"event": "failed", "message": _explain(spec, error)}).encode()
        writer.write(len(body).to_bytes(4, "little") + body)
        await writer.drain()
        os._exit(1)
    await kernel.serve()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
