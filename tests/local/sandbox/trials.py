"""Make every attempt inside a sandbox and where it must succeed.

Prints a table as JSON.

    python trials.py SOURCE DIRECTORY

The process itself plays the service that the attempts are aimed at.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import socket
import stat
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent), str(Path(__file__).parent)]

from attempts import ATTEMPTS, Attempt, source  # noqa: E402 - found beside this program

from agentbay.local.network.dialer import EgressDialer  # noqa: E402
from agentbay.local.network.egress_policy import EgressRule, HostPort  # noqa: E402
from agentbay.local.network.proxy import EgressProxy  # noqa: E402
from agentbay.local.sandbox.service import config_builder, zygote_process  # noqa: E402
from agentbay.local.sandbox.service.manager import BindMount, Sandbox, SandboxManager, SandboxSpec  # noqa: E402
from agentbay.local.sandbox.shared import seccomp, syscalls  # noqa: E402
from agentbay.local.sandbox.shared.file_protocol import WriteFile  # noqa: E402

ROOT = os.geteuid() == 0
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
NOBODY = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"] if ROOT else []
PATIENCE = 60.0
# what a zygote does without one of its layers
LEFT_OUT = {
    "seccomp": "from agentbay.local.sandbox.shared import seccomp; "
    "seccomp.build_filter = lambda *_: bytes.fromhex('060000000000ff7f'); ",  # allow all
    # not just left alone: the change of uid has made root's sandboxes undumpable before
    "network": "from agentbay.local.sandbox.shared import landlock; landlock.block_abstract_sockets = bool; ",
    "dumpable": "from agentbay.local.sandbox.shared import syscalls as s; real = s.prctl; "
    "s.prctl = lambda option, value: real(option, 1 if option == s.PR_SET_DUMPABLE else value); "
    # capabilities of process 1, which sandboxed code lacks, protect it too
    "from agentbay.local.sandbox.zygote import namespaces as n; n.has_operations_user = lambda uid: False; ",
}
EXTRA = {"reboot": (169, 142), "clone": (56, 220), "swapon": (167, 224)}


class Target:
    """What there is to be reached on the host."""

    def __init__(self, directory: Path) -> None:
        self.hidden, self.scratch, self.shown = (directory / name for name in ("hidden", "scratch", "shown"))
        for path in (self.hidden, self.scratch, self.shown):
            path.mkdir(mode=0o755)
        os.chdir(self.hidden)
        (self.hidden / "secret").write_text("host-secret")
        (self.shown / "file").write_text("host-file")
        (self.shown / "file").chmod(0o666)
        self.shm = Path(f"/dev/shm/agentbay-{os.getpid()}")
        self.shm.write_text("host-secret")
        self.fd = os.open("secret", os.O_RDONLY)
        os.set_inheritable(self.fd, True)
        self.memory = ctypes.create_string_buffer(b"secrets!")
        self.segment = 0x5000000 + os.getpid()
        self.libc = ctypes.CDLL(None)
        self.segment_id = self.libc.shmget(self.segment, 4096, 0o1600)
        if ROOT:
            os.chown(self.scratch, 12345, 12345)

    async def facts(self, stack: AsyncExitStack) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        other = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        answering = await asyncio.start_server(_answer, "127.0.0.1", 0)
        stack.callback(answering.close)
        abstract, path = f"agentbay-{os.getpid()}", str(self.hidden / "socket")
        for address in ("\0" + abstract, path):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.bind(address)
            sock.listen()
        transport, _ = await loop.create_datagram_endpoint(Echo, ("127.0.0.1", 0))
        stack.callback(transport.close)
        disk = self.hidden.stat().st_dev
        return {
            "secret": str(self.hidden / "secret"),
            "directory": str(self.hidden),
            "bind": str(self.shown / "file"),
            "shm": str(self.shm),
            "pid": os.getpid(),
            "fd": self.fd,
            "address": ctypes.addressof(self.memory),
            "segment": self.segment,
            "port": listener.getsockname()[1],
            "other_port": other.getsockname()[1],
            "answering_port": answering.sockets[0].getsockname()[1],
            "datagrams": transport.get_extra_info("sockname")[1],
            "abstract": abstract,
            "socket": path,
            "disk_path": next((str(node) for node in Path("/dev").iterdir() if _is_disk(node, disk)), "/dev/none"),
            "cgroup": _first_group(),
            "numbers": _numbers(),
        }

    def close(self) -> None:
        self.shm.unlink()
        self.libc.shmctl(self.segment_id, 0, None)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    writer.close()


class Unchecked(EgressDialer):
    """A dialer that allows every destination."""

    async def _require_rule(self, destination: HostPort) -> EgressRule:
        return EgressRule(destination.host, (destination.port,))


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.transport.sendto(data, address)


class TrialSandboxes:
    """Sandboxes, whole ones and some that lack a layer."""

    def __init__(self, directory: Path, stack: AsyncExitStack, facts: dict[str, Any]) -> None:
        self.directory, self.stack, self.facts = directory, stack, facts
        self.sandboxes: dict[str, Sandbox] = {}

    async def make(self, lacking: str, **options: Any) -> Sandbox:
        if lacking not in self.sandboxes:
            manager = await self._manager(lacking)
            root = self.directory / f"sandbox-{lacking}"
            root.mkdir()
            network = "host" if lacking == "network" else "proxy"
            sandbox = await manager.create(SandboxSpec(root=root, network=network, **options))
            if listener := sandbox.take_proxy_listener():
                self.stack.callback(EgressProxy(listener, self._reach(lacking)).close)
            self.sandboxes[lacking] = sandbox
        return self.sandboxes[lacking]

    def _reach(self, lacking: str) -> EgressDialer:
        """Allow public addresses with the ports of these services, and one by name."""
        if lacking == "proxy":
            return Unchecked([], own_port=0)
        ports = self.facts["port"], self.facts["answering_port"]
        return EgressDialer([EgressRule("*", ports), EgressRule("localhost", ports[:1])], own_port=ports[0])

    async def _manager(self, lacking: str) -> SandboxManager:
        program, owner = zygote_process._BOOTSTRAP_CODE, config_builder.sandbox_owner
        start, rest = program.split("from {module}")
        zygote_process._BOOTSTRAP_CODE = start + LEFT_OUT.get(lacking, "").replace("{", "{{") + "from {module}" + rest
        if lacking == "owner":
            config_builder.sandbox_owner = lambda: None
        try:
            manager = await SandboxManager.start()
            self.stack.push_async_callback(manager.close)
            return manager
        finally:
            zygote_process._BOOTSTRAP_CODE, config_builder.sandbox_owner = program, owner


async def inside(sandbox: Sandbox, attempt: Attempt, facts: dict[str, Any]) -> str:
    done = await sandbox.run(["python3", "-c", source(attempt), json.dumps(facts)], timeout=PATIENCE)
    return _verdict(done.exit_code, done.stdout, done.stderr)


async def outside(prefix: list[str], attempt: Attempt, facts: dict[str, Any], target: Target) -> str:
    command = [*prefix, PYTHON, "-c", source(attempt), json.dumps(facts)]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=target.scratch,
        pass_fds=[target.fd],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    return _verdict(process.returncode or 0, out, err)


def _verdict(code: int, out: bytes, err: bytes) -> str:
    lines = out.decode().split("\n")
    return lines[-2] if len(lines) > 1 else f"died {code} {err.decode()[-300:]}"


async def watched(canary: asyncio.subprocess.Process, verdict: str, seconds: float) -> str:
    """For signals to everyone the verdict is the canary's."""
    assert canary.stdout
    try:
        return "OPEN" if await asyncio.wait_for(canary.stdout.readline(), seconds) == b"hit\n" else verdict
    except TimeoutError:
        return "closed, nobody else was hit"


async def whole(directory: Path) -> list[dict[str, str]]:
    target, results = Target(directory), []
    async with AsyncExitStack() as stack:
        stack.callback(target.close)
        facts = await target.facts(stack)
        factory = TrialSandboxes(directory, stack, facts)
        stranger = await factory.make("nothing")
        await stranger.run_file_operation(WriteFile("secret"), input=b"host-secret")
        facts |= {"other_pid": stranger.pid, "other_file": str(directory / "sandbox-nothing/home/secret")}
        subject = await factory.make("", binds=[BindMount(str(target.shown), str(target.shown), read_only=True)])
        for attempt in ATTEMPTS:
            if attempt.name == "signal everyone":
                async with AsyncExitStack() as meanwhile:
                    canary = await _canary(meanwhile)
                    verdict = await watched(canary, await inside(subject, attempt, facts), 0.5)
                    control = await watched(canary, await _control(factory, attempt, facts, target), PATIENCE)
            else:
                verdict = await inside(subject, attempt, facts)
                control = await _control(factory, attempt, facts, target)
            results.append({"name": attempt.name, "inside": verdict, "without": attempt.control, "control": control})
    return results


async def _control(factory: TrialSandboxes, attempt: Attempt, facts: dict[str, Any], target: Target) -> str:
    if attempt.control in ("root", "owner") and not ROOT:
        return "skipped: takes root"
    if attempt.control in ("user", "root", "nobody"):
        return await outside(NOBODY if attempt.control == "nobody" else [], attempt, facts, target)
    return await inside(await factory.make(attempt.control), attempt, facts)


async def _canary(stack: AsyncExitStack) -> asyncio.subprocess.Process:
    program = (
        "import signal; signal.signal(signal.SIGWINCH, lambda *_: print('hit', flush=True)); print('up', flush=True)\n"
        "while True: signal.pause()"
    )
    canary = await asyncio.create_subprocess_exec(
        *NOBODY, PYTHON, "-c", program, cwd="/", stdout=asyncio.subprocess.PIPE
    )
    assert canary.stdout
    await canary.stdout.readline()

    async def end() -> None:
        canary.send_signal(signal.SIGKILL)
        await canary.wait()

    stack.push_async_callback(end)
    return canary


def _first_group() -> str:
    """Return the members of the first control group.

    Others come and go meanwhile.
    """
    walk = os.walk("/sys/fs/cgroup")
    return next((f"{folder}/cgroup.procs" for folder, _, names in walk if "cgroup.procs" in names), "/nowhere")


def _is_disk(node: Path, device: int) -> bool:
    status = node.stat(follow_symlinks=False)
    return stat.S_ISBLK(status.st_mode) and status.st_rdev == device


def _numbers() -> dict[str, int]:
    x86 = syscalls.ARCHITECTURE == "x86_64"
    table = seccomp._X86_64 if x86 else seccomp._AARCH64
    return {**seccomp._DENIED_EVERYWHERE, **table, **{name: both[not x86] for name, both in EXTRA.items()}}


if __name__ == "__main__":
    json.dump(asyncio.run(whole(Path(sys.argv[2]))), sys.stdout)
