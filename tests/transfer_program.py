"""Transfer a file both ways and print the cost: `transfer_program.py FLAVOUR URL KEY FILE`."""

import asyncio
import inspect
import json
import sys
import time
from pathlib import Path

import agentbay
from agentbay import Config


async def resolve(value):
    """Return the value, awaited if it is awaitable."""
    return await value if inspect.isawaitable(value) else value


def peak():
    """Return the peak memory of this process alone, in MiB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


async def timed(call):
    """Return the duration in seconds, and the peak memory in MiB."""
    began = time.monotonic()
    (await resolve(call())).unwrap()
    return [time.monotonic() - began, peak()]


async def measure(bay, file):
    """Send and fetch a small file, then measure the large one."""
    session = (await resolve(bay.create())).unwrap().session
    files = session.file_system
    there = f"{await resolve(files.get_file_transfer_context_path())}/file"
    small = file.with_name("small")
    small.write_bytes(b"x")
    await timed(lambda: files.upload_file(small, there, wait_timeout=600))
    await timed(lambda: files.download_file(there, small, wait_timeout=600))
    seen = {"before": peak()}
    seen["up"] = await timed(lambda: files.upload_file(file, there, wait_timeout=600))
    seen["down"] = await timed(lambda: files.download_file(there, file.with_name("back"), wait_timeout=600))
    await resolve(bay.delete(session))
    return seen


def main():
    flavour, url, key, file = sys.argv[1:5]
    client = agentbay.AsyncAgentBay if flavour == "async" else agentbay.AgentBay
    print(json.dumps(asyncio.run(measure(client(api_key=key, cfg=Config(endpoint=url)), Path(file)))))


if __name__ == "__main__":
    main()
