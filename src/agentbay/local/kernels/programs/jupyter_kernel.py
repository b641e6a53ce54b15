"""The bridge to any Jupyter kernel: it translates Jupyter's messages into frames.

Bridge and kernel run inside the sandbox, and talk through Unix sockets. `connection.py` describes the frames.
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

_START_TIMEOUT_SECONDS = 55.0  # less than the service waits
_MAX_FRAME_BYTES = 32 << 20  # the service takes no larger ones
_MAX_ERROR_CHARS = 256 << 10  # kept of the message of an error, and of its traceback
_PR_SET_PDEATHSIG = 1
_COLOUR_SEQUENCE = re.compile(r"\x1b\[[0-9;]*m")


class JupyterBridge:
    """One Jupyter kernel and the socket to the service."""

    def __init__(self, spec: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        directory = tempfile.mkdtemp(prefix="jupyter-")
        self._manager = AsyncKernelManager(
            kernel_name=spec, transport="ipc", connection_file=f"{directory}/connection.json"
        )
        self._client: AsyncKernelClient
        self._execution_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the kernel, and return when it can run code."""
        # its output comes as messages
        await self._manager.start_kernel(preexec_fn=_die_with_parent, stdout=DEVNULL, stderr=DEVNULL)
        self._client = self._manager.client()
        self._client.start_channels()
        await self._client.wait_for_ready(timeout=_START_TIMEOUT_SECONDS)
        self.send("ready", pid=os.getpid())

    async def serve(self) -> NoReturn:
        """Serve until the service disconnects or the kernel exits."""
        ended = asyncio.create_task(self._exit_with_kernel())
        # The service has closed the connection.
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

    def send(self, event: str, **fields: Any) -> None:
        """Send a frame, or say in its place that it is too large."""
        body = _encode({"event": event, **fields})
        if len(body) > _MAX_FRAME_BYTES:
            text = f"[left out: {len(body)} bytes are more than can be shown]"
            body = _encode({"event": event, **fields, "data": {"text/plain": text}})
        self._writer.write(len(body).to_bytes(4, "little") + body)

    async def _exit_with_kernel(self) -> NoReturn:
        assert self._manager.provisioner is not None
        code = await self._manager.provisioner.wait() or 0
        await self._writer.drain()
        # This process dies of the same signal, so that the service reports what killed the kernel.
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
        # Output ends with the idle status on iopub, while the count comes in the reply on the shell channel.
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
                self.send("clear", wait=content.get("wait", False))
            case "error":
                lines = "\n".join(content.get("traceback", []))
                traceback = _COLOUR_SEQUENCE.sub("", f"{lines}\n" if lines else "")
                name = content["ename"] or "Error"
                self.send("error", name=name, value=_shorten(content["evalue"]), traceback=_shorten(traceback))
            case _:  # such as the status of the kernel
                pass


def _is_reply_to(message: dict[str, Any], request: str) -> bool:
    return bool(message["parent_header"].get("msg_id") == request)


def _encode(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _shorten(text: str) -> str:
    """Cut the middle out of a long text."""
    if len(text) <= _MAX_ERROR_CHARS:
        return text
    half = _MAX_ERROR_CHARS // 2
    return f"{text[:half]}\n[cut: {len(text) - 2 * half} characters]\n{text[-half:]}"


def _write(fd: int, text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")
    while data:
        data = data[os.write(fd, data) :]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _explain_failure(spec: str, error: BaseException) -> str:
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
    """Start the kernel of a kernelspec, and serve it."""
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    reader, writer = await asyncio.open_unix_connection(sock=control, limit=1 << 26)
    try:
        kernel = JupyterBridge(spec, reader, writer)
        await kernel.start()
    except (NoSuchKernel, OSError, RuntimeError) as error:
        body = json.dumps({"event": "failed", "message": _explain_failure(spec, error)}).encode()
        writer.write(len(body).to_bytes(4, "little") + body)
        await writer.drain()
        os._exit(1)
    await kernel.serve()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
