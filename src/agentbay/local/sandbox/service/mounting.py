"""Mounts that a sandbox gets while it runs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Sequence

from agentbay.local.sandbox.service import config_builder, zygote_process
from agentbay.local.sandbox.service.errors import SandboxError
from agentbay.local.sandbox.service.sandbox import Sandbox
from agentbay.local.sandbox.service.spec import BindMount

_PROGRAM = "agentbay.local.sandbox.zygote.mount_into_running"


class MountFailed(SandboxError):
    """The kernel refused the mount, for this reason."""


async def mount_into_running(sandbox: Sandbox, bind: BindMount) -> None:
    """Show a directory of the host in a running sandbox.

    Raises:
        MountFailed: It cannot be mounted.
        SandboxError: The sandbox has ended, or has no namespaces.
    """
    _, fds = await sandbox.get_join_info()
    order = {
        "bind": config_builder.make_bind_config(bind),
        "owner": config_builder.sandbox_owner(),
        "host_ids": sandbox.host_ids,
        "mount_point_owner": sandbox.mount_point_owner(bind.target),
        "namespaces": fds,
    }
    command = zygote_process.module_command(_PROGRAM, json.dumps(order))
    try:
        failure = await asyncio.to_thread(_run_for_error, command, fds)
    finally:
        for fd in fds:
            os.close(fd)
    if failure:
        raise MountFailed(f"{bind.target} could not be mounted: {failure}")


def _run_for_error(command: Sequence[str], fds: Sequence[int]) -> str:
    """Run a program with inherited descriptors, and return its error or ""."""
    done = subprocess.run(command, pass_fds=fds, env={}, capture_output=True, check=False)
    return done.stderr.decode(errors="replace").strip().rpartition("\n")[2] if done.returncode else ""
