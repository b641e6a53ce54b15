"""Use a private runtime in a container of podman: `container_program.py STEP`."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from agentbay import AgentBay, AsyncAgentBay, LocalOptions
from agentbay.errors import AgentBayError
from agentbay.testing import local_runtime

HERE = LocalOptions(container="podman", container_image="localhost/agentbay-test")
SMALL = LocalOptions(max_sessions=1)
SERVER = "python3 -m http.server 8000 --bind 127.0.0.1 --directory tree"
IS_UP = "for i in $(seq 100); do (echo > /dev/tcp/127.0.0.1/8000) 2>&- && break; sleep 0.1; done"
REFUSED = (
    LocalOptions(state_dir="/srv/agentbay"),
    LocalOptions(model_url="http://127.0.0.1:11434/v1", model="m"),
    LocalOptions(isolation="none", network="none"),
)


def use() -> None:
    """Print what a session of each flavour answers."""
    with AgentBay.local(**HERE, strict=True) as bay, bay.session() as session, TemporaryDirectory() as top:
        here, back = Path(top, "here"), Path(top, "back")
        here.mkdir()
        (here / "pushed").write_bytes(b"\0pushed")
        session.file_system.push(here, "tree")
        session.file_system.pull("tree", back)
        print((back / "pushed").read_bytes())
        session.command.start(SERVER)
        session.command.run(["bash", "-c", IS_UP])
        with urlopen(f"{session.get_link('https', 8000).data}pushed") as answer:
            print(answer.read())
        print(session.code.run_code("x = 6; x * 7", "python").result)
        print(session.command.run("ls /var/lib/agentbay 2>&-; id -un").output)
    asyncio.run(use_async())


async def use_async() -> None:
    async with AsyncAgentBay.local(**{**HERE, **SMALL}) as bay, bay.session() as session:
        print((await session.command.run("pwd")).output)
        print(type((await bay.create()).exception).__name__)


def refuse() -> None:
    """Print why options are refused."""
    for options in REFUSED:
        try:
            with AgentBay.local(**{**HERE, **options}) as bay:
                bay.list().unwrap()
        except AgentBayError as error:
            print(f"{type(error).__name__}: {error}")


def die() -> None:
    """Print where the runtime is, and be killed."""
    with local_runtime(**HERE) as runtime:
        print(runtime.endpoint, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


{"use": use, "refuse": refuse, "die": die}[sys.argv[1]]()
