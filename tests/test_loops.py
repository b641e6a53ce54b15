"""One client in several event loops, threads and processes.

Each scenario runs in a fresh interpreter.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap

import pytest

from agentbay import AsyncAgentBay, Config, ConnectionFailed
from tests.scripted import Service, eventually, late, ok

FOUND = ok({"SessionId": "session-x", "Status": "RUNNING"})

_PRELUDE = """
import asyncio, gc, os, sys, threading
from agentbay import AgentBay, AsyncAgentBay, ClientClosedError, Config

cfg = Config(endpoint=sys.argv[1])

def sockets():
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            pass
    return sum(link.startswith("socket:") for link in found)

async def get(bay, times=3):
    for result in await asyncio.gather(*(bay.get("session-x") for _ in range(times))):
        result.unwrap()

def run_thread(target, count=2):
    failures = []
    def body():
        try:
            target()
        except BaseException as error:
            failures.append(error)
            raise
    threads = [threading.Thread(target=body) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures

def forked(body):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            body()
            gc.collect()
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""

SCENARIOS = {
    "three loops in turn": """
        bay = AsyncAgentBay("k", cfg)
        for _ in range(3):
            asyncio.run(get(bay))
            assert sockets() == 0
        """,
    "a loop, then closed in another": """
        bay = AsyncAgentBay("k", cfg)
        asyncio.run(get(bay))
        asyncio.run(bay.aclose())
        assert sockets() == 0
        try:
            asyncio.run(get(bay))
        except ClientClosedError:
            pass
        else:
            raise AssertionError
        """,
    "two threads with a loop each": """
        bay = AsyncAgentBay("k", cfg)
        def body():
            for _ in range(5):
                asyncio.run(get(bay))
        run_thread(body)
        assert sockets() == 0
        """,
    "a thread beside a running loop": """
        bay = AsyncAgentBay("k", cfg)
        async def main():
            await get(bay)
            await asyncio.gather(*(asyncio.to_thread(asyncio.run, get(bay)) for _ in range(3)), get(bay))
            await get(bay)
        asyncio.run(main())
        assert sockets() == 0
        """,
    "after a fork": """
        bay = AsyncAgentBay("k", cfg)
        asyncio.run(get(bay))
        forked(lambda: asyncio.run(get(bay)))
        asyncio.run(get(bay))
        assert sockets() == 0
        """,
    "a fork inside a running loop": """
        bay = AsyncAgentBay("k", cfg)
        async def main():
            await get(bay)
            forked(lambda: asyncio.run(get(bay)))
            await get(bay)
        asyncio.run(main())
        assert sockets() == 0
        """,
    "a client that nobody closed": """
        async def main():
            await get(AsyncAgentBay("k", cfg))
            for _ in range(3):
                await asyncio.sleep(0.02)
                gc.collect()
            assert sockets() <= 2, sockets()  # those of the loop itself
        asyncio.run(main())
        asyncio.run(get(AsyncAgentBay("k", cfg)))
        gc.collect()
        assert sockets() == 0
        """,
    "many clients in one loop": """
        async def main():
            for _ in range(20):
                async with AsyncAgentBay("k", cfg) as bay:
                    await get(bay)
            await asyncio.sleep(0.05)
            assert sockets() <= 2, sockets()
        asyncio.run(main())
        """,
    "a call that the end of the loop cuts off": """
        bay = AsyncAgentBay("k", cfg)
        async def main():
            task = asyncio.create_task(get(bay))
            await asyncio.sleep(0.02)
        asyncio.run(main())
        assert sockets() == 0
        asyncio.run(get(bay))
        """,
    "sync in threads": """
        sys.setswitchinterval(1e-6)
        bay = AgentBay("k", cfg)
        def body():
            for _ in range(25):
                bay.get("session-x").unwrap()
        run_thread(body, 16)
        assert sockets() <= 16
        bay.close()
        assert sockets() == 0
        """,
    "sync after a fork": """
        bay = AgentBay("k", cfg)
        bay.get("session-x").unwrap()
        forked(lambda: bay.get("session-x").unwrap())
        bay.get("session-x").unwrap()
        forked(bay.close)
        bay.get("session-x").unwrap()
        bay.close()
        assert sockets() == 0
        """,
    "sync inside a running loop": """
        import warnings
        from agentbay import BlockingCallWarning
        def blocking(bay):
            for _ in range(3):
                bay.get("session-x").unwrap()
        async def main():
            with AgentBay("k", cfg) as bay:
                blocking(bay)
                blocking(bay)
                with warnings.catch_warnings(action="error"):
                    await asyncio.to_thread(blocking, bay)
                    await get(AsyncAgentBay("k", cfg))
        def run(runner):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("default")
                runner(main())
            return [(item.category, item.filename, item.lineno) for item in caught]
        line = blocking.__code__.co_firstlineno + 2
        assert run(asyncio.run) == [(BlockingCallWarning, "<string>", line)], line
        if sys.platform != "win32":
            import uvloop
            del __warningregistry__
            assert run(uvloop.run) == [(BlockingCallWarning, "<string>", line)]
        assert sockets() == 0
        """,
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str) -> None:
    """Each use works repeatedly, without warnings and leaked sockets."""
    program = _PRELUDE + textwrap.dedent(SCENARIOS[name])
    with Service(late(0.005, FOUND)) as service:
        forking = "ignore:This process:DeprecationWarning"  # beside threads, which is what some of these are about
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-W", forking, "-c", program, service.url],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        assert service.count("GetSession") > 0
        eventually(lambda: service.open_now == 0)


def test_without_asyncio() -> None:
    """Without an event loop of asyncio, as under trio, an error names asyncio and the way out."""
    bay = AsyncAgentBay("akm-test", Config(endpoint="http://127.0.0.1:9"))
    for call in (bay.list(), bay.session().__aenter__()):
        with pytest.raises(RuntimeError, match=r"event loop of asyncio.*trio\.to_thread\.run_sync"):
            call.send(None)


async def test_a_call_for_a_page_is_a_coroutine_and_iterable() -> None:
    """`list` can be awaited, become a task, be gathered, or be iterated over, which raises what its result holds."""
    async with AsyncAgentBay("akm-test", Config(endpoint="http://127.0.0.1:9"), max_retries=0) as bay:
        results = [await bay.list(), await asyncio.create_task(bay.list()), *await asyncio.gather(bay.list())]
        assert [result.session_ids for result in results] == [[], [], []]
        assert not any(results)
        with pytest.raises(ConnectionFailed):
            assert [item async for item in bay.list()] == []
        bay.list().close()
