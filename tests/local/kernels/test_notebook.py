"""What Python code may expect of a notebook's kernel."""

from __future__ import annotations

import json

import pytest

from agentbay.local.kernels.execution_output import MIB
from tests.local.kernels.conftest import KernelRunner, written

pytestmark = pytest.mark.parametrize("runner", ["warm", "cold"], indirect=True)

RESIDENT_MIB = "int(open('/proc/self/statm').read().split()[1]) * 4 // 1024"


async def test_event_loop_in_every_cell(runner: KernelRunner) -> None:
    """Tasks begin in cells that await nothing, and go on between cells."""
    await runner.run("import asyncio, os")
    code = (
        "async def work():\n"
        "    print('begun')\n"
        "    while not os.path.exists('go'): await asyncio.sleep(0.01)\n"
        "    open('gone', 'x').close(); return 42\n"
        "task = asyncio.create_task(work())"
    )
    assert written(await runner.run(code)) == "begun\n"
    await runner.sandbox.run(["sh", "-c", "cd; touch go; until [ -e gone ]; do sleep 0.05; done; rm go gone"])
    assert await runner.value("task.done() or await task") == "True"
    assert await runner.value("await asyncio.gather(task, asyncio.sleep(0, 'x'))") == "[42, 'x']"
    assert await runner.value("asyncio.get_running_loop() is asyncio.get_event_loop() is task.get_loop()") == "True"


@pytest.mark.parametrize(
    "code",
    [
        "asyncio.run(answer())",
        "await asyncio.sleep(0); asyncio.run(answer())",
        "asyncio.get_event_loop().run_until_complete(answer())",
        "asyncio.new_event_loop().run_until_complete(answer())",
        "with asyncio.Runner() as runner: got = runner.run(answer())\ngot",
        "future = asyncio.ensure_future(answer())\nasyncio.get_event_loop().run_until_complete(future)",
        "from concurrent.futures import ThreadPoolExecutor as E\nE().submit(asyncio.run, answer()).result()",
        "asyncio.get_event_loop().close()\nasyncio.run(answer())",
        "asyncio.get_event_loop().stop()\nasyncio.run(answer())",
    ],
)
async def test_loops_of_the_code(runner: KernelRunner, code: str) -> None:
    """Programs that run a loop themselves work in a cell, and leave a loop to the next one."""
    await runner.run("import asyncio\nasync def answer(): await asyncio.sleep(0.01); return 42")
    assert await runner.value(code) == "42"
    assert await runner.value("await asyncio.create_task(answer())") == "42"


async def test_interrupt_spares_tasks_of_earlier_cells(runner: KernelRunner) -> None:
    """An interrupt ends the tasks of its own cell, and those of earlier ones go on."""
    await runner.run("import asyncio\nasync def endless():\n    while True: await asyncio.sleep(0.01)")
    await runner.run("earlier = asyncio.create_task(endless())")
    interrupted = await runner.run("own = asyncio.create_task(endless()); await own", timeout=1)
    assert interrupted.timed_out
    assert await runner.value("own.cancelled(), earlier.done(), earlier.cancel()") == "(True, False, True)"


async def test_tasks_that_exit(runner: KernelRunner) -> None:
    """A task that raises SystemExit between cells does not end the kernel, and is told of."""
    await runner.run(
        "import asyncio, os, sys\nasync def leave():\n"
        "    while not os.path.exists('go'): await asyncio.sleep(0.01)\n"
        "    open('left', 'x'); sys.exit(3)"
    )
    await runner.run("task = asyncio.create_task(leave())")
    await runner.sandbox.run(["sh", "-c", "cd; touch go; until [ -e left ]; do sleep 0.05; done; rm go left"])
    output = await runner.run("task.done()")
    assert "SystemExit" in "".join(json.loads(output.to_json(""))["stderr"])
    assert await runner.value("task.done()") == "True"


async def test_tasks_that_fork(runner: KernelRunner) -> None:
    """A child that a task forks between cells takes no request of the kernel."""
    fork = "    while not os.path.exists('go'): await asyncio.sleep(0.01)\n    os.fork(); open('forked', 'a').close()"
    await runner.run(f"import asyncio, os\nasync def fork():\n{fork}")
    await runner.run("parent = os.getpid(); task = asyncio.create_task(fork())")
    await runner.sandbox.run(["sh", "-c", "cd; touch go; until [ -e forked ]; do sleep 0.05; done; rm go forked"])
    for _ in range(4):
        assert await runner.value("os.getpid() == parent") == "True"


RECURSIONS = {
    "plain": "def r(): return r()\nr()",
    "through C": "class A:\n    def __repr__(self): return repr(self)\nrepr(A())",
    "cached": "import functools\n@functools.cache\ndef f(n): return f(n + 1)\nf(0)",
    "errors in errors": "def e():\n    try: e()\n    except Exception: raise RecursionError\ne()",
    "shown": "class B:\n    def __repr__(self): return repr(self)\nB()",
}


@pytest.mark.parametrize("kind", RECURSIONS)
@pytest.mark.parametrize("limit", [3000, 100_000])
async def test_endless_recursion(runner: KernelRunner, kind: str, limit: int) -> None:
    """Endless recursion is a RecursionError that keeps the state, whatever limit the code has set."""
    code = RECURSIONS[kind]
    limit = 3000 if kind == "errors in errors" else limit  # Python itself takes minutes for 100,000 handlers
    output = await runner.run(f"import sys; kept = 7; sys.setrecursionlimit({limit})\n{code}")
    told = "\n".join(json.loads(output.to_json(""))["stderr"])
    assert "RecursionError" in told
    assert len(told) < 20_000
    assert await runner.value("sys.setrecursionlimit(3000); kept") == "7"


async def test_long_tracebacks(runner: KernelRunner) -> None:
    """A long traceback keeps its two ends, and says how much was cut."""
    code = "def odd(n): return even(n - 1)\ndef even(n): return odd(n - 1) if n else 1 / 0\nodd(501)"
    output = await runner.run(code)
    assert output.error is not None
    assert output.error["name"] == "ZeroDivisionError"
    assert "odd(501)" in output.error["traceback"]
    assert "1 / 0" in output.error["traceback"]
    assert "[cut: " in output.error["traceback"]


@pytest.mark.parametrize(
    "harm", ["sys.stdout = None", "sys.stdout = sys.stderr = None", "sys.stdout.close()", "sys.stderr.close()"]
)
async def test_streams_of_the_code(runner: KernelRunner, harm: str) -> None:
    """Code that takes its streams away can go on and put them back."""
    await runner.run(f"import sys\n{harm}")
    failed = await runner.run("1 / 0")
    assert failed.error is not None
    assert "1 / 0" in failed.error["traceback"]
    assert await runner.value("x = !echo 6\nint(x[0]) * 7") == "42"
    assert await runner.output("sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__; print('hi')") == "hi\n"


async def test_printed_text_leaves_the_memory(runner: KernelRunner) -> None:
    """What cells print takes no memory of the kernel afterwards."""
    await runner.run("print('x' * (20 << 20))")
    before = int(await runner.value(RESIDENT_MIB))
    for _ in range(3):
        await runner.run("print('x' * (60 << 20))")
    assert int(await runner.value(RESIDENT_MIB)) - before < 90


async def test_too_much_memory(runner: KernelRunner) -> None:
    """Code that wants more memory than the session has meets a MemoryError and keeps the state."""
    await runner.run("kept = 7")
    output = await runner.run("x = b'x' * (1200 << 20)")
    assert output.error is not None
    assert output.error["name"] == "MemoryError"
    assert await runner.value("kept") == "7"
    assert await runner.value("import os; [n for n in os.environ if 'KERNEL' in n]") == "[]"


async def test_input(runner: KernelRunner) -> None:
    """The traceback of input() has the code's own line, and none of the kernel."""
    output = await runner.run("name = input('who? ')")
    assert output.error is not None
    assert "----> 1 name = input('who? ')" in output.error["traceback"]
    assert "_reject_input" not in output.error["traceback"]


VALUES = {
    "{'a': [1, 2.5, None, True, 'x', (1, {})], 'b': {}}": {"a": [1, 2.5, None, True, "x", [1, {}]], "b": {}},
    "[]": [],
    "import collections; collections.OrderedDict(a=1)": {"a": 1},
    "{1: 2}": None,
    "[float('nan')]": None,
    "[10 ** 4000]": None,
    "[{1}]": None,
    "ring = []; ring.append(ring); ring": None,
    "deep = []\nfor _ in range(60): deep = [deep]\ndeep": None,
    "[0] * 200_000": None,
    "(1, 2)": None,
    "'text'": None,
}


@pytest.mark.parametrize("code", VALUES)
async def test_values_as_json(runner: KernelRunner, code: str) -> None:
    """A dict or list as the value of a cell comes as JSON too, if JSON can hold it."""
    output = await runner.run(code)
    assert not output.failed, output.error_line
    (shown,) = json.loads(output.to_json(""))["result"]
    assert json.loads(shown).get("application/json") == VALUES[code]
    assert "text/plain" in json.loads(shown)
    assert not output.truncated
    assert len(shown) < MIB
