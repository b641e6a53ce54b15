"""Bounds of what kernels may send, and what honest code sees of them."""

from __future__ import annotations

import json
import resource
from typing import Any

import pytest

from agentbay.local.kernels.byte_budget import ByteBudget
from agentbay.local.kernels.connection import MAX_FRAME_BYTES, BadFrame, FrameProtocol
from agentbay.local.kernels.execution_output import MIB, ExecutionOutput
from tests.local.kernels.conftest import KernelRunner, written

# finds the socket of the kernel that runs this, and sends frames
ATTACK = """
import json, os, socket
fd = next(int(f) for f in os.listdir('/proc/self/fd') if os.readlink('/proc/self/fd/' + f).startswith('socket:'))
link = socket.socket(fileno=os.dup(fd))
def send(body):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    link.sendall(len(body).to_bytes(4, 'little') + body)
"""
FLOODS = {
    "tracebacks": "for i in range(25): send(dict(event='error', name='x', value='y', traceback='A' * (20 << 20)))",
    "values": "for i in range(25): send(dict(event='error', name='x' * 9999, value='A' * (20 << 20), traceback=''))",
    "display ids": "for i in range(25): send(dict(event='result', data={}, display=str(i) + 'A' * (20 << 20)))",
    "displays": "for i in range(25): send(dict(event='result', data={'text/plain': 'A' * (20 << 20)}, main=True))",
    "updates": "for i in range(25): send(dict(event='result', data={'a': 'A' * (9 << 20)}, display='d', update=i > 0))",
    "lists": 'for i in range(20): send(b\'{"event": "result", "data": {"a/b": [\' + b\'[],\' * (8 << 20) + b\'[]]}}\')',
    "oversized": "for i in range(5): send(b' ' * (60 << 20))",
    "output": "for i in range(25): os.write(1, b'A' * (20 << 20)); os.write(2, b'A' * (20 << 20))",
}
PEAK_BYTES = 350 * MIB  # more than one frame and its copies need; each flood is 500 MiB


def answer(output: ExecutionOutput) -> str:
    """Return the whole text of the answer."""
    text = output.to_json("")
    return text if isinstance(text, str) else "".join(text.text_pieces())


@pytest.mark.parametrize("runner", ["warm"], indirect=True)
@pytest.mark.parametrize("flood", FLOODS)
async def test_floods_take_no_memory(runner: KernelRunner, flood: str) -> None:
    """A kernel that floods the service with large frames takes a bounded part of its memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    output = await runner.run(ATTACK + FLOODS[flood])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < PEAK_BYTES
    assert len(answer(output)) < 80 * MIB
    # a long id is only ignored, and an update takes the place of the one before
    assert output.truncated or output.failed or flood in ("display ids", "updates")
    assert "42" in await runner.value("40 + 2")  # the kernel survives


@pytest.mark.parametrize("runner", ["warm"], indirect=True)
async def test_deep_frame(runner: KernelRunner) -> None:
    """A deeply nested value is left out, and the answer says so."""
    for depth in 90, 150, 900, 100_000:
        nested = f"b'[' * {depth} + b']' * {depth}"
        output = await runner.run(ATTACK + 'send(b\'{"event": "result", "data": {"a/b": \' + ' + nested + " + b'}}')")
        assert output.truncated == (depth > 100), depth
        json.loads(answer(output))
    assert "42" in await runner.value("40 + 2")


LARGE_ERROR = {
    "python": "raise ValueError('x' * 40_000_000)",
    "javascript": "throw new TypeError('x'.repeat(10_000_000))",
    "r": "stop(strrep('x', 40000000))",
    "java": 'throw new IllegalStateException("x".repeat(40_000_000));',
}
LARGE_VALUE = {
    "python": "from IPython.display import HTML; HTML('\u6c49' * 9_000_000)",
    "javascript": "html('x'.repeat(40 << 20))",
    "r": "display_html(strrep('x', 40000000))",
    "java": '"x".repeat(40_000_000)',
}


async def test_large_error(runner: KernelRunner) -> None:
    """A very long error is told in short, and the kernel keeps its state."""
    output = await runner.run(LARGE_ERROR[runner.language])
    assert output.error is not None
    assert output.error["name"] not in ("KernelDied", "TimeoutError")
    assert "[cut: " in output.error["value"] or runner.language == "r"  # R shortens messages itself
    assert len(output.error_line) < MIB
    assert "42" in await runner.value("40 + 2")


async def test_large_value(runner: KernelRunner) -> None:
    """A value that is too large on the wire is left out, and said so."""
    output = await runner.run(LARGE_VALUE[runner.language])
    assert not output.failed, output.error_line
    assert "left out" in output.to_json("")
    assert "42" in await runner.value("40 + 2")


@pytest.mark.parametrize("runner", ["warm", "cold"], indirect=True)
async def test_displays_in_bounds(runner: KernelRunner) -> None:
    """What was cleared takes no room, clear_output(wait=True) waits, and the value has a place."""
    await runner.run("from IPython.display import clear_output, display, HTML")
    loop = "for i in range(900):\n    clear_output(wait=True); display(HTML(f'step {i} ' + 'x' * 50000))"
    output = await runner.run(loop)
    shown = json.loads(output.to_json(""))["result"]
    assert [json.loads(item)["text/html"][:9] for item in shown] == ["step 899 "]
    output = await runner.run("for i in range(3):\n    display(i); clear_output(wait=True)")
    assert [json.loads(item)["text/plain"] for item in json.loads(output.to_json(""))["result"]] == ["2"]
    output = await runner.run("for i in range(1500): display(i)\n'the answer'")
    assert output.truncated
    last = json.loads(json.loads(output.to_json(""))["result"][-1])
    assert (last["text/plain"], last["isMainResult"]) == ("'the answer'", True)


@pytest.mark.parametrize("runner", ["warm", "cold"], indirect=True)
async def test_end_of_a_cell(runner: KernelRunner) -> None:
    """An interrupt ends the tasks of its cell, and a forked child ends with its cell."""
    await runner.run("import asyncio, os; n = 0")
    output = await runner.run("while True:\n    await asyncio.sleep(0.01); n += 1; print('old')", timeout=1)
    assert output.timed_out
    before = await runner.value("n")
    output = await runner.run("await asyncio.sleep(0.2)")
    assert "old" not in written(output)
    assert await runner.value("n") == before
    output = await runner.run("if os.fork() == 0: print('child')\nelse: os.wait(); print('parent')")
    assert sorted(written(output).split()) == ["child", "parent"]
    for _ in range(3):
        assert await runner.value("n") == before


@pytest.mark.parametrize("runner", ["warm", "cold"], indirect=True)
async def test_between_cells(runner: KernelRunner) -> None:
    """Variables that code has changed stay, and late displays come with the next cell."""
    runner.environment["WORD"] = "one"
    await runner.run("import os, threading; os.environ['WORD'] = 'two'")
    assert await runner.value("os.environ['WORD']") == "'two'"
    runner.environment["WORD"] = "three"
    assert await runner.value("os.environ['WORD']") == "'three'"
    await runner.run("shown = threading.Event()\ndef late(): display('late'); shown.set()")
    started = await runner.run("threading.Timer(0.1, late).start()")
    output = await runner.run("shown.wait(60)")
    # on a busy machine the first of both cells takes longer than the timer, and has the display
    assert f"{started.to_json('')}{output.to_json('')}".count("'late'") == 1


@pytest.mark.parametrize("runner", ["warm"], indirect=True)
async def test_paths_of_the_host(runner: KernelRunner) -> None:
    """A warm kernel tells nothing of where its zygote keeps files on the host."""
    code = (
        "import sys, matplotlib\n"
        "print(open('/proc/self/cmdline').read(), open('/proc/self/environ').read(), sys.orig_argv, sys.argv,\n"
        "      matplotlib.get_configdir(), matplotlib.get_cachedir(), get_ipython().ipython_dir,\n"
        "      get_ipython().profile_dir.location)"
    )
    text = await runner.output(code)
    assert "agentbay/matplotlib" not in text
    assert "agentbay/ipython" not in text
    assert "sys.path.insert" not in text
    assert "/tmp/.matplotlib" in text


class Receiver:
    """Feeds a FrameProtocol without a loop or a socket behind it."""

    def __init__(self, budget: ByteBudget) -> None:
        self.frames: list[dict[str, Any]] = []
        self.left_out: list[int] = []
        self.broken = False
        self.protocol = FrameProtocol(self._on_frame, self.left_out.append, self._break, budget)
        self.protocol.connection_made(_Transport())

    def _on_frame(self, frame: dict[str, Any]) -> None:
        if frame.get("event") == "bad":
            raise BadFrame
        self.frames.append(frame)

    def _break(self) -> None:
        self.broken = True

    def feed(self, *bodies: bytes, chunk: int = 1 << 16) -> None:
        data = b"".join(len(body).to_bytes(4, "little") + body for body in bodies)
        for start in range(0, len(data), chunk):
            self.protocol.data_received(data[start : start + chunk])


class _Transport:
    """The two methods that a protocol calls."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


@pytest.mark.parametrize("chunk", [1, 3, 1 << 16])
def test_frames_in_pieces(chunk: int) -> None:
    """Frames arrive whole, however the bytes are split."""
    receiver = Receiver(ByteBudget())
    receiver.feed(b'{"a": 1}', b"{}", b'{"b": "\xc3\xa9"}', chunk=chunk)
    assert receiver.frames == [{"a": 1}, {}, {"b": "é"}]


def test_frames_beyond_the_bounds() -> None:
    """A frame beyond its limit or the budget is left out, and the next one is read."""
    budget = ByteBudget(MIB)
    receiver = Receiver(budget)
    large = b'{"text": "' + b"x" * MIB + b'"}'
    receiver.feed(b"{}", large, b" " * (MAX_FRAME_BYTES + 1), b'{"a": 1}')
    assert receiver.frames == [{}, {"a": 1}]
    assert receiver.left_out == [len(large), MAX_FRAME_BYTES + 1]
    assert budget.try_reserve(MIB)  # nothing is reserved any more


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b'{"event": "bad"}'])
def test_protocol_errors(body: bytes) -> None:
    """What is no frame is a protocol error, after which nothing is read."""
    receiver = Receiver(ByteBudget())
    receiver.feed(body, b"{}")
    assert receiver.broken
    assert receiver.frames == []


def test_budget_of_a_session() -> None:
    """Outputs of several executions share a budget, and give it back at their end."""
    budget = ByteBudget(10 * MIB)
    first, second = ExecutionOutput(), ExecutionOutput()
    for output in first, second:
        output.start(budget)
        output.add_output("stdout", b"x" * (4 * MIB))
    second.add_display({"text/plain": "y" * (4 * MIB)}, main=True)
    assert second.truncated
    first.release_budget()
    second.add_display({"text/plain": "y" * (4 * MIB)}, main=True)
    assert "yyy" in answer(second)
    second.release_budget()
    assert budget.try_reserve(10 * MIB)
