"""The life of a session on a local runtime, with and without `await`.

    scripts/demo

Each line is one step and the time it took. With AGENTBAY_API_KEY set and `--cloud` given, the same runs on the cloud.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from agentbay import AgentBay, AgentBayError, AsyncAgentBay, CreateSessionParams

CLOUD = "--cloud" in sys.argv[1:]
PARAMS = CreateSessionParams(labels={"example": "demo"})
COUNT = "(while :; do echo >> count; sleep 0.01; done) > /dev/null 2>&1 &"
COUNTED = "sleep 0.2; wc -l < count"


@contextmanager
def step(what: str) -> Iterator[list[str]]:
    """Time one step, and print it with its note."""
    notes: list[str] = []
    began = time.perf_counter()
    yield notes
    took = (time.perf_counter() - began) * 1000
    print(f"  {what:<34}{took:8.1f} ms   {' '.join(notes)}", flush=True)


async def use_with_await() -> None:
    """Use `AsyncAgentBay`."""
    async with AsyncAgentBay(strict=True) if CLOUD else AsyncAgentBay.local(strict=True) as bay:
        if not CLOUD:
            with step("start the local runtime") as notes:
                notes.append(f"{(await bay.list()).total_count} sessions")
        async with bay.session(PARAMS) as session:
            with step("run a command in a new session") as notes:
                notes.append((await session.command.run("id -un; pwd; uname -s")).output.replace("\n", " "))
            with step("write a file") as notes:
                await session.file_system.write_file("notes/plan.txt", "a café, a naïve plan and ✓\n")
            with step("read it back") as notes:
                notes.append((await session.file_system.read_file("notes/plan.txt")).content.strip())
            with step("list the directory") as notes:
                notes += [entry.name for entry in (await session.file_system.list_directory("notes")).entries]
            with step("label the session") as notes:
                await session.set_labels({"example": "demo", "flavour": "with await"})
                notes.append(str((await session.get_labels()).data))
            with step("start a counter in it") as notes:
                await session.command.run(COUNT)
                notes.append((await session.command.run(COUNTED)).output.strip())
            with step("pause it for a second") as notes:
                notes.append((await session.pause()).status or "")
                await asyncio.sleep(1)
            with step("resume it") as notes:
                notes.append((await session.resume()).status or "")
            with step("see that nothing was lost") as notes:
                counted = (await session.command.run(COUNTED)).output.strip()
                notes.append(f"the counter stood still for a second, and goes on: {counted}")
            with step("find it in the list") as notes:
                found = [item["sessionId"] async for item in bay.iter_sessions(labels={"flavour": "with await"})]
                notes.append(f"{found == [session.session_id]}")
            with step("delete it") as notes:
                await session.delete()
        with step("list what is left") as notes:
            notes.append(f"{(await bay.list(labels={'example': 'demo'})).total_count} sessions")


def use_without() -> None:
    """Use `AgentBay`."""
    with AgentBay(strict=True) if CLOUD else AgentBay.local(strict=True) as bay:
        if not CLOUD:
            with step("start the local runtime") as notes:
                notes.append(f"{bay.list().total_count} sessions")
        with bay.session(PARAMS) as session:
            with step("run a command in a new session") as notes:
                notes.append(session.command.run("id -un; pwd; uname -s").output.replace("\n", " "))
            with step("write a file") as notes:
                session.file_system.write_file("notes/plan.txt", "a café, a naïve plan and ✓\n")
            with step("read it back") as notes:
                notes.append(session.file_system.read_file("notes/plan.txt").content.strip())
            with step("list the directory") as notes:
                notes += [entry.name for entry in session.file_system.list_directory("notes").entries]
            with step("label the session") as notes:
                session.set_labels({"example": "demo", "flavour": "without"})
                notes.append(str(session.get_labels().data))
            with step("start a counter in it") as notes:
                session.command.run(COUNT)
                notes.append(session.command.run(COUNTED).output.strip())
            with step("pause it for a second") as notes:
                notes.append(session.pause().status or "")
                time.sleep(1)
            with step("resume it") as notes:
                notes.append(session.resume().status or "")
            with step("see that nothing was lost") as notes:
                counted = session.command.run(COUNTED).output.strip()
                notes.append(f"the counter stood still for a second, and goes on: {counted}")
            with step("find it in the list") as notes:
                found = [item["sessionId"] for item in bay.iter_sessions(labels={"flavour": "without"})]
                notes.append(f"{found == [session.session_id]}")
            with step("delete it") as notes:
                session.delete()
        with step("list what is left") as notes:
            notes.append(f"{bay.list(labels={'example': 'demo'}).total_count} sessions")


def main() -> int:
    """Run both, and return the exit code."""
    try:
        print("With await (AsyncAgentBay)")
        asyncio.run(use_with_await())
        print("Without (AgentBay)")
        use_without()
    except AgentBayError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; the sessions and the runtime are gone.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
