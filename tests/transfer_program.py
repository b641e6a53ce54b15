"""A transfer there and back as a program: `transfer_program.py FLAVOUR URL KEY FILE`. Prints what it took, as JSON."""

import asyncio
import inspect
import json
import sys
import time
from pathlib import Path

import agentbay
from agentbay import Config


async def settled(value):
    """Return the value, awaited if it must be."""
    return await value if inspect.isawaitable(value) else value


def peak():
    """The most memory this process has had so far, MiB; getrusage would count what it was forked from too."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


async def timed(call):
    """Do it; return how long it took, and the most memory since the process began."""
    began = time.monotonic()
    (await settled(call())).unwrap()
    return [time.monotonic() - began, peak()]


async def tell(bay, file):
    """Send a small file, so that all is loaded, then the file; fetch it again."""
    session = (await settled(bay.create())).unwrap().session
    files = session.file_system
    there = f"{await settled(files.get_file_transfer_context_path())}/file"
    small = file.with_name("small")
    small.write_bytes(b"x")
    await timed(lambda: files.upload_file(small, there, wait_timeout=600))
    await timed(lambda: files.download_file(there, small, wait_timeout=600))
    seen = {"before": peak()}
    seen["up"] = await timed(lambda: files.upload_file(file, there, wait_timeout=600))
    seen["down"] = await timed(lambda: files.download_file(there, file.with_name("back"), wait_timeout=600))
    await settled(bay.delete(session))
    return seen


def main():
    """Run one flavour."""
    flavour, url, key, file = sys.argv[1:5]
    client = agentbay.AsyncAgentBay if flavour == "async" else agentbay.AgentBay
    print(json.dumps(asyncio.run(tell(client(api_key=key, cfg=Config(endpoint=url)), Path(file)))))


if __name__ == "__main__":
    main()
