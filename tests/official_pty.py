"""Use terminals with the official client: `official_pty.py FLAVOUR URL`.

Both packages are imported as `agentbay`; which one it is depends on the interpreter. Its last line is JSON: what came.
"""

import asyncio
import inspect
import json
import os
import sys
import time
import warnings

import agentbay
from agentbay import Config


async def resolve(value: object) -> object:
    return await value if inspect.isawaitable(value) else value


async def until(condition: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        await asyncio.sleep(0.02)


async def main(flavour: str, url: str) -> None:
    kind = agentbay.AsyncAgentBay if flavour == "async" else agentbay.AgentBay
    client = kind(api_key=os.environ["AGENTBAY_API_KEY"], cfg=Config(endpoint=url))
    created = await resolve(client.create())
    assert created.success, created.error_message
    session, seen = created.session, bytearray()
    found: dict[str, object] = {}
    try:
        handle = await resolve(session.pty.create(cols=100, rows=30, on_data=seen.extend))
        await until(lambda: b"$ " in seen)
        found["prompt"] = seen.decode()
        await resolve(handle.resize(70, 20))
        await resolve(handle.send_input(b"stty size; printf 'h\\303\\244\\377'; echo; exit 3\n"))
        found["exit"] = await resolve(handle.wait(60))
        found["output"] = seen.decode(errors="replace")

        quick = bytearray()
        handle = await resolve(session.pty.create(shell="sh -c 'printf quick; exit 7'", on_data=quick.extend))
        found["quick"] = [await resolve(handle.wait(60)), quick.decode()]

        handle = await resolve(session.pty.create())
        await resolve(handle.send_input(b"echo kept\n"))
        await asyncio.sleep(0.3)
        listed = await resolve(session.pty.list())
        running = [item.pty_session_id for item in listed if item.status == "running"]
        found["listed"] = running == [handle.pty_session_id]
        handle.disconnect()
        replay = bytearray()
        handle = await resolve(session.pty.connect(handle.pty_session_id, on_data=replay.extend))
        await until(lambda: b"kept" in replay)
        found["replay"] = b"kept" in replay
        await resolve(session.pty.kill(handle.pty_session_id))
        try:
            await resolve(session.pty.connect("pty-unknown"))
        except Exception as error:  # noqa: BLE001 - the two raise errors of their own
            found["unknown"] = f"{error}"
    finally:
        await resolve(session.delete())
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the official client says that Config(endpoint=...) is deprecated
    asyncio.run(main(sys.argv[1], sys.argv[2]))
