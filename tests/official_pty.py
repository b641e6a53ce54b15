"""Terminals with the published client against a runtime: `official_pty.py FLAVOUR URL`, the key in AGENTBAY_API_KEY.

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


async def finished(value: object) -> object:
    return await value if inspect.isawaitable(value) else value


async def until(condition: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        await asyncio.sleep(0.02)


async def main(flavour: str, url: str) -> None:
    kind = agentbay.AsyncAgentBay if flavour == "async" else agentbay.AgentBay
    client = kind(api_key=os.environ["AGENTBAY_API_KEY"], cfg=Config(endpoint=url))
    created = await finished(client.create())
    assert created.success, created.error_message
    session, seen = created.session, bytearray()
    found: dict[str, object] = {}
    try:
        handle = await finished(session.pty.create(cols=100, rows=30, on_data=seen.extend))
        await until(lambda: b"$ " in seen)
        found["prompt"] = seen.decode()
        await finished(handle.resize(70, 20))
        await finished(handle.send_input(b"stty size; printf 'h\\303\\244\\377'; echo; exit 3\n"))
        found["exit"] = await finished(handle.wait(60))
        found["output"] = seen.decode(errors="replace")

        quick = bytearray()
        handle = await finished(session.pty.create(shell="sh -c 'printf quick; exit 7'", on_data=quick.extend))
        found["quick"] = [await finished(handle.wait(60)), quick.decode()]

        handle = await finished(session.pty.create())
        await finished(handle.send_input(b"echo kept\n"))
        await asyncio.sleep(0.3)
        listed = await finished(session.pty.list())
        running = [item.pty_session_id for item in listed if item.status == "running"]
        found["listed"] = running == [handle.pty_session_id]
        handle.disconnect()
        replay = bytearray()
        handle = await finished(session.pty.connect(handle.pty_session_id, on_data=replay.extend))
        await until(lambda: b"kept" in replay)
        found["replay"] = b"kept" in replay
        await finished(session.pty.kill(handle.pty_session_id))
        try:
            await finished(session.pty.connect("pty-unknown"))
        except Exception as error:  # noqa: BLE001 - the two raise errors of their own
            found["unknown"] = f"{error}"
    finally:
        await finished(session.delete())
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the published client says that Config(endpoint=...) is deprecated
    asyncio.run(main(sys.argv[1], sys.argv[2]))
