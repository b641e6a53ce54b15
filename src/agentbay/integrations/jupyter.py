"""Jupyter: run the kernel of a notebook in a session.

`python -m agentbay.integrations.jupyter` adds such a kernel to those that Jupyter offers.
"""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from agentbay.integrations import _jupyter_relay as relay, missing
from agentbay.integrations._jupyter_session import KernelSession

try:
    from jupyter_client.connect import KernelConnectionInfo
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
    from traitlets import Unicode
except ImportError as error:
    raise missing("jupyter", error) from error


class AgentBayProvisioner(KernelProvisionerBase):
    """Runs the kernel of a notebook in a session, which restarts keep.

    Attributes:
        image: Image of the session; "" is the default.
    """

    image = Unicode("", config=True, help="Image of the session.")
    has_process: bool = False  # whether there is a kernel whose end nobody has waited for
    _kernel: KernelSession | None = None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Return what `launch_kernel` needs."""
        arguments = kwargs.pop("extra_arguments", [])
        return await super().pre_launch(cmd=[*self.kernel_spec.argv, *arguments], **kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start a kernel. Of the environment it gets what its kernelspec names."""
        manager: Any = self.parent
        messages = manager.session
        signing = {"key": messages.key.decode(), "signature_scheme": messages.signature_scheme}
        env = {name: kwargs["env"][name] for name in self.kernel_spec.env}
        kernel = self._kernel = self._kernel or KernelSession(self.image)
        try:
            await kernel.run(kernel.start({"argv": cmd, "env": env, "connection": signing}))
        except BaseException:
            await self.cleanup()
            raise
        self.has_process = True
        ports = {f"{channel}_port": port for channel, port in zip(relay.CHANNELS, kernel.ports, strict=True)}
        info: Any = {**ports, **signing, "key": messages.key, "ip": "127.0.0.1", "transport": "tcp"}
        self.connection_info = info
        return self.connection_info

    async def poll(self) -> int | None:
        """Return the exit code, None while the kernel runs."""
        return self._kernel.exit_code if self._kernel else 0

    async def wait(self) -> int | None:
        """Wait for the end of the kernel."""
        if self._kernel:
            await self._kernel.run(self._kernel.wait())
            if self._kernel.exit_code:
                self.log.warning("The kernel ended with code %s: %s", self._kernel.exit_code, self._kernel.log)
        self.has_process = False
        return await self.poll()

    async def send_signal(self, signum: int) -> None:
        """Send a signal to the kernel and the processes that it has started."""
        if self._kernel:
            await self._kernel.run(self._kernel.signal(signum))

    async def kill(self, restart: bool = False) -> None:
        """Kill the kernel."""
        await self.send_signal(9)  # SIGKILL in a session, whatever this machine has

    async def terminate(self, restart: bool = False) -> None:
        """Ask the kernel to end."""
        await self.send_signal(15)

    async def cleanup(self, restart: bool = False) -> None:
        """Delete the session, unless another kernel is to follow."""
        if self._kernel and not restart:
            kernel, self._kernel, self.has_process = self._kernel, None, False
            await kernel.end()


def install(name: str = "agentbay", image: str = "", *, user: bool = False) -> str:
    """Add a kernel to those that Jupyter offers, and return its directory.

    Args:
        name: Name of the kernel.
        image: Image of its sessions; "" is the default.
        user: Add it for this user, not for the environment of this Python.
    """
    spec = {
        "argv": ["python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": f"Python in a session ({name})",
        "language": "python",
        "metadata": {"kernel_provisioner": {"provisioner_name": "agentbay", "config": {"image": image}}},
    }
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "kernel.json").write_text(json.dumps(spec, indent=2))
        return KernelSpecManager().install_kernel_spec(directory, name, user=user, prefix=None if user else sys.prefix)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m agentbay.integrations.jupyter", description=install.__doc__)
    parser.add_argument("--name", default="agentbay")
    parser.add_argument("--image", default="")
    parser.add_argument("--user", action="store_true")
    sys.stdout.write(f"{install(**vars(parser.parse_args()))}\n")
