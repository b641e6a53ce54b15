"""Code in real kernels of the private runtime."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from agentbay import (
    AsyncAgentBay,
    AsyncSession,
    CodeCleared,
    CodeEnded,
    CodeError,
    CodeFailed,
    CodeShown,
    CodeStdout,
    CodeTimeoutError,
    CreateSessionParams,
    DeleteResult,
    EnhancedCodeExecutionResult,
    InvalidArgumentError,
)
from agentbay._concurrency import async_run_blocking, async_sleep
from tests.at_once import async_at_once

PROGRAM = Path(__file__).parent.parent / "official_code.py"
MIB = 1 << 20


@pytest.fixture(scope="module")
async def session(bay: AsyncAgentBay) -> AsyncIterator[AsyncSession]:
    """A session shared by tests that ignore what others defined in it."""
    async with bay.session(CreateSessionParams(image_id="code_latest")) as session:
        yield session


async def run(session: AsyncSession, code: str, language: str = "python") -> EnhancedCodeExecutionResult:
    result = await session.code.run_code(code, language)
    assert result.success, result
    return result


async def test_state_is_kept(session: AsyncSession) -> None:
    """Later code sees what earlier code defined, and the count goes up."""
    first = await run(session, "import math\nkept = 6")
    second = await session.code.execute("print('hello')\nkept * 7", "PY ")
    assert (second.result, second.logs.stdout, second.logs.stderr) == ("42", ["hello\n"], [])
    assert second.results[0].is_main_result
    assert (first.execution_count or 0) + 1 == second.execution_count
    assert 0 < second.execution_time < 60


async def test_place(session: AsyncSession) -> None:
    """Code runs as the session's user, at home, isolated like commands."""
    await session.file_system.write_file("mymodule.py", "answer = 42\n")
    assert (await run(session, "import os, mymodule; (os.getcwd(), os.getuid(), mymodule.answer)")).result == (
        "('/home/wuying', 1000, 42)"
    )
    assert (await run(session, "print(open('/proc/1/cmdline').read() != '', os.path.exists('/work'))")).logs.stdout
    refused = await session.code.run("open('/proc/sys/kernel/core_pattern', 'w')", "python")
    assert refused.error is not None
    assert refused.error.name == "PermissionError"
    status = (await run(session, "print(open('/proc/self/status').read())")).logs.stdout[0]
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"
    assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0


async def test_environment(session: AsyncSession) -> None:
    """Code sees variables of `session.env`, also in a kernel that runs already."""
    await run(session, "import os")
    assert await session.env.set({"GREETING": "moin"})
    assert (await run(session, "os.environ['GREETING']")).result == "'moin'"
    assert (await run(session, "!echo $GREETING")).logs.stdout == ["moin\n"]
    assert (await run(session, "process.env.GREETING", "js")).result == "'moin'"


async def test_rich_results(session: AsyncSession) -> None:
    """Every MIME type comes through, displays in their order."""
    shown = (
        await run(
            session,
            "from IPython.display import *\n"
            "display(HTML('<b>x</b>'), Latex('$x$'), JSON({'a': 1}), Markdown('# x'), SVG('<svg/>'))\n"
            "display({'application/vnd.vegalite.v5+json': {'mark': 'bar'}}, raw=True)\n"
            "display({'application/x-own': 'y'}, raw=True)\n"
            "'end'",
        )
    ).results
    assert (shown[0].html, shown[1].latex, shown[2].json, shown[3].markdown) == ("<b>x</b>", "$x$", {"a": 1}, "# x")
    assert "svg" in (shown[4].svg or "")
    assert shown[5].chart == {"mark": "bar"}
    assert shown[6].data == {"application/x-own": "y"}
    assert [item.is_main_result for item in shown] == [False] * 7 + [True]


async def test_plot(session: AsyncSession) -> None:
    """A plot arrives as an image without an explicit call."""
    result = await run(session, "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.title('$x^2$');")
    (image,) = [item.png for item in result.results if item.png]
    assert base64.b64decode(image).startswith(b"\x89PNG\r\n")


async def test_pandas(session: AsyncSession) -> None:
    """A table arrives as text and as HTML."""
    (table,) = (await run(session, "import pandas as pd\npd.DataFrame({'a': [1, 2]})")).results
    assert "<table" in (table.html or "")
    assert "a" in (table.text or "")


DISPLAYS = {
    "handle = display('old', display_id=True); handle.update('new')": ["'new'"],
    "for i in range(5): clear_output(wait=True); display(i)": ["4"],
    "display(1); clear_output(); display(2); clear_output(wait=True)": ["2"],
    "display(1, display_id='a'); display(2, display_id='a'); update_display(3, display_id='a')": ["3", "3"],
    "display(1, display_id='b'); clear_output(); update_display(2, display_id='b')": ["2"],
    "update_display('news', display_id='earlier'); update_display('more', display_id='earlier')": ["'more'"],
}


@pytest.mark.parametrize("code", DISPLAYS)
async def test_displays_in_their_last_state(session: AsyncSession, code: str) -> None:
    """What was updated or cleared is shown in its last state, in a stream as well."""
    await run(session, "from IPython.display import clear_output, update_display\ndisplay('e', display_id='earlier')")
    assert [item.text for item in (await run(session, code)).results] == DISPLAYS[code]
    streamed = await session.code.run_code(code, "python", stream_beta=True)
    assert [item.text for item in streamed.results] == DISPLAYS[code]


async def test_events_replace_and_clear(session: AsyncSession) -> None:
    """Events say which display they replace, and when all is cleared."""
    await run(session, "from IPython.display import clear_output")
    code = "handle = display('old', display_id='x')\nhandle.update('new')\nclear_output()\n'end'"
    async with session.code.stream(code, "python") as stream:
        events = [event async for event in stream]
    assert [type(event) for event in events] == [CodeShown, CodeShown, CodeCleared, CodeShown, CodeEnded]
    shown = [event for event in events if isinstance(event, CodeShown)]
    assert [(event.result.text, event.display_id, event.replaces) for event in shown] == [
        ("'old'", "x", False), ("'new'", "x", True), ("'end'", None, False),
    ]  # fmt: skip
    async with session.code.stream("handle.update('later')", "python") as stream:
        later = [event async for event in stream if isinstance(event, CodeShown)]
    assert [(event.result.text, event.display_id, event.replaces) for event in later] == [("'later'", "x", False)]


@pytest.mark.slow
async def test_slow_reader_of_many_frames(session: AsyncSession) -> None:
    """A client that reads slowly gets the last of 150 MB of frames that cleared each other."""
    code = (
        "from IPython.display import clear_output, HTML\nfor i in range(1500):\n"
        "    clear_output(wait=True); display(HTML(f'{i} ' + 'x' * 100000))\nopen('all-displayed', 'x').close()"
    )
    wait = "until [ -e all-displayed ]; do sleep 0.1; done"
    async with session.code.stream(code, "python", 120) as stream:
        async for event in stream:
            while isinstance(event, CodeShown) and not (await session.command.run(wait, 30_000)).success:
                pass
    assert [(item.html or "")[:5] for item in stream.result.results] == ["1499 "]
    assert not stream.result.truncated


async def test_late_displays_replace_each_other(session: AsyncSession) -> None:
    """What a thread displays between two cells comes with the next one, in its last state."""
    code = (
        "import os, threading, time\nfrom IPython.display import clear_output\ndef late():\n"
        "    while not os.path.exists('go'): time.sleep(0.01)\n"
        "    for i in range(100): clear_output(wait=True); display({'text/plain': f'{i} ' + 'x' * 50000}, raw=True)\n"
        "    print('printed', flush=True); open('gone', 'x').close()\n"
        "threading.Thread(target=late).start()"
    )
    await run(session, code)
    await session.command.run("touch go; until [ -e gone ]; do sleep 0.1; done")
    later = await run(session, "'next'")
    assert [(item.text or "")[:6] for item in later.results] == ["99 xxx", "'next'"]
    assert later.logs.stdout == ["printed\n"]
    assert not later.truncated


async def test_traceback(session: AsyncSession) -> None:
    """Failing code reports its traceback and its earlier output, and raises nothing."""
    result = await session.code.run_code("print('before')\n1 / 0", "python")
    assert not result.success
    assert result.error is not None
    assert (result.error.name, result.error.value) == ("ZeroDivisionError", "division by zero")
    assert result.error_message == "ZeroDivisionError: division by zero"
    assert "----> 2 1 / 0" in result.error.traceback
    assert "----> 2 1 / 0" in "".join(result.logs.stderr)
    assert result.logs.stdout == ["before\n"]
    syntax = await session.code.run_code("def f(:", "python")
    assert syntax.error is not None
    assert syntax.error.name == "SyntaxError"


async def test_top_level_await_and_commands(session: AsyncSession) -> None:
    """A cell may await, and run commands with `!` whose output is kept."""
    assert (await run(session, "import asyncio\nawait asyncio.sleep(0.01, 5)")).result == "5"
    result = await run(session, "!echo out\nimport subprocess; subprocess.run('echo err >&2', shell=True);")
    assert (result.logs.stdout, result.logs.stderr) == (["out\n"], ["err\n"])


async def test_input_says_what_to_do(session: AsyncSession) -> None:
    """`input()` fails at once and says what to do."""
    result = await session.code.run_code("input('name? ')", "python")
    assert "nobody to ask" in result.error_message


@pytest.mark.parametrize(
    "code",
    ["while True: pass", "import time; time.sleep(100)", "!sleep 100", "import asyncio; await asyncio.sleep(99)"],
)
async def test_timeout_keeps_the_state(session: AsyncSession, code: str) -> None:
    """Code beyond its time limit is interrupted, and definitions are kept."""
    await run(session, "before = 1")
    result = await session.code.run_code(code, "python", timeout_s=1)
    assert isinstance(result.exception, CodeTimeoutError)
    assert "interrupted" in result.error_message
    with pytest.raises(CodeTimeoutError):
        result.check()
    assert (await run(session, "before")).result == "1"


@pytest.mark.slow
async def test_timeout_of_code_that_will_not_end(bay: AsyncAgentBay) -> None:
    """Code that ignores the interrupt is killed, and a new kernel follows."""
    stubborn = (
        "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\nwhile True: time.sleep(1)"
    )
    async with bay.session() as session:
        result = await session.code.run_code(stubborn, "python", timeout_s=3)
        assert isinstance(result.exception, CodeTimeoutError)
        assert "killed" in result.error_message
        assert (await run(session, "1")).execution_count == 1


@pytest.mark.parametrize("code", ["import sys; sys.exit(3)", "exit()", "raise SystemExit"])
async def test_exit(session: AsyncSession, code: str) -> None:
    """`exit()` ends the code, not the kernel."""
    await run(session, "still = 'here'")
    result = await session.code.run_code(code, "python")
    assert result.error is not None
    assert result.error.name == "SystemExit"
    assert (await run(session, "still")).result == "'here'"


@pytest.mark.parametrize(
    ("code", "fate"),
    [
        ("import os; os._exit(3)", "exited with 3"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    ],
)
async def test_dead_kernel(bay: AsyncAgentBay, code: str, fate: str) -> None:
    """A kernel that dies says how, and the next call gets a new one."""
    async with bay.session() as session:
        result = await session.code.run_code(f"print('last words')\n{code}", "python")
        assert result.error is not None
        assert result.error.name == "KernelDied"
        assert fate in result.error.value
        assert result.logs.stdout == ["last words\n"]
        assert (await run(session, "40 + 2")).result == "42"


async def test_memory_limit(session: AsyncSession) -> None:
    """Code beyond the memory limit meets a MemoryError."""
    limited = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, resource.RLIM_INFINITY))\n"
    result = await session.code.run_code(f"{limited}hoard = bytearray(2 << 30)", "python")
    assert result.error is not None
    assert result.error.name in ("MemoryError", "KernelDied")
    assert (await run(session, "1")).result == "1"


async def test_endless_output(session: AsyncSession) -> None:
    """Output beyond the limit is counted and not kept, and the result says so."""
    result = await run(session, "print('x' * 30_000_000)")
    text = "".join(result.logs.stdout)
    assert result.truncated
    assert text.startswith("xxx")
    assert "[cut:" in text[-200:]
    assert len(text) < 9 * MIB
    endless = await session.code.run_code("while True: print('y' * 1000)", "python", timeout_s=2)
    assert isinstance(endless.exception, CodeTimeoutError)
    assert endless.truncated
    quiet = await run(session, "print('z')")
    assert "".join(quiet.logs.stdout) == "z\n"


async def test_output_that_is_no_text(session: AsyncSession) -> None:
    """Bytes that are not UTF-8 are replaced."""
    result = await run(session, r"import os; os.write(1, b'a\xff\x00\xfe\n'); print('\ud800')")
    assert result.logs.stdout == ["a\ufffd\x00\ufffd\n\\ud800\n"]
    shown = await run(session, r"'\ud800'")
    assert shown.result


async def test_nonsense_from_the_kernel(bay: AsyncAgentBay) -> None:
    """Code that writes into its kernel's socket ends only that kernel."""
    meddling = "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'nonsense' * 9)\n    except OSError: pass"
    async with bay.session() as session:
        result = await session.code.run_code(meddling, "python")
        assert "socket of its own kernel" in result.error_message
        assert (await run(session, "1")).result == "1"


async def test_sessions_are_apart(bay: AsyncAgentBay) -> None:
    """Sessions have kernels of their own, with different random numbers."""

    async def one(name: str) -> tuple[str, str]:
        async with bay.session() as session:
            await run(session, f"mine = {name!r}; open('/tmp/mine', 'x').write(mine)")
            dice = (await run(session, "import random; import numpy; (random.random(), numpy.random.rand())")).result
            return (await run(session, "mine + open('/tmp/mine').read()")).result, dice

    def of(name: str) -> Callable[[], Awaitable[tuple[str, str]]]:
        return lambda: one(name)

    results = await async_at_once([of(name) for name in "abcdef"])
    assert [result for result, _ in results] == [repr(name * 2) for name in "abcdef"]
    assert len({dice for _, dice in results}) == 6


async def test_calls_of_one_session_take_turns(session: AsyncSession) -> None:
    """Code waits while other code of its session runs."""
    await run(session, "trace = []")
    code = "trace.append('begin'); import time; time.sleep(0.05); trace.append('end')"
    await async_at_once([lambda: run(session, code)] * 3)
    assert (await run(session, "trace == ['begin', 'end'] * 3")).result == "True"


async def test_pause_stops_the_clock(bay: AsyncAgentBay) -> None:
    """A kernel is frozen with its session and resumed with it."""
    async with bay.session() as session:
        await run(session, "kept = 1")
        assert await session.pause()
        assert not await session.code.run_code("kept", "python")
        assert await session.resume()
        assert (await run(session, "kept")).result == "1"


async def test_deletion_ends_the_code(bay: AsyncAgentBay) -> None:
    """Deleting a session ends its code, and the caller gets an error."""
    async with bay.session() as session:
        await run(session, "1")

        async def delete() -> DeleteResult:
            await async_sleep(0.3)
            return await session.delete()

        async def endless() -> EnhancedCodeExecutionResult:
            return await session.code.run_code("import time; time.sleep(60)", "python", 60)

        ended, deleted = await async_at_once([endless, delete])
        assert deleted
        assert not ended
        assert not isinstance(ended.exception, CodeTimeoutError)


async def test_unknown_language(session: AsyncSession) -> None:
    """An unknown language is the service's refusal, which lists the known ones."""
    for stream in (False, True):
        unknown = await session.code.run_code("1", "cobol", stream_beta=stream)
        assert not unknown
        assert "Unsupported language: 'cobol'. It must be one of python, javascript, java, r." in unknown.error_message
    plain = await session.code.run_code("1", "cobol")
    assert isinstance(plain.exception, CodeError)
    assert (await session.code.run_code("6 * 7", " Py ")).result == "42"


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 0, -1, 1 << 31, "5", True])
async def test_invalid_time_limits(session: AsyncSession, seconds: float) -> None:
    """A time limit that is no positive number is refused unsent."""
    refused = await session.code.run_code("1", "python", timeout_s=seconds)
    assert isinstance(refused.exception, InvalidArgumentError)
    assert f"not {seconds!r}" in refused.error_message
    with pytest.raises(InvalidArgumentError):
        session.code.stream("1", "python", seconds)


async def test_time_limit_in_parts_of_a_second(session: AsyncSession) -> None:
    """Time limits are rounded up to whole seconds."""
    assert (await session.code.run_code("1", "python", timeout_s=0.5)).result == "1"


async def test_streaming_with_callbacks(session: AsyncSession) -> None:
    """Callbacks are called while code runs, and their exceptions stop nothing."""
    written: list[str] = []
    errors: list[dict[str, str]] = []

    def broken(text: str) -> None:
        raise ValueError(text)

    code = "import sys, time\nfor i in range(3): print(i); time.sleep(0.5)\nsys.stderr.write('w')\n1 / 0"
    result = await session.code.run_code(code, "python", 60, True, written.append, broken, errors.append)
    assert "".join(written) == "0\n1\n2\n"
    assert len(written) > 1
    assert [(error["code"], error["message"]) for error in errors] == [("ZeroDivisionError", "division by zero")]
    assert result.error_message == "ZeroDivisionError: division by zero"
    assert "".join(result.logs.stdout) == "0\n1\n2\n"
    assert result.logs.stderr[0] == "w"


async def test_streaming_events(session: AsyncSession) -> None:
    """Every event arrives, and `CodeEnded` comes last with the whole result."""
    code = "print('a')\ndisplay({'text/html': '<b>'}, raw=True)\nimport sys; sys.stderr.write('b')\n42"
    async with session.code.stream(code, "python") as stream:
        events = [event async for event in stream]
    kinds = [type(event).__name__ for event in events[:-1]]
    assert sorted(kinds) == ["CodeShown", "CodeShown", "CodeStderr", "CodeStdout"]
    assert stream.result.result == "42"
    assert stream.result.success
    assert events[-1] == CodeEnded(stream.result)
    plain = await session.code.run_code(code, "python")
    assert [item.data for item in stream.result.results] == [item.data for item in plain.results]


async def test_interrupt(session: AsyncSession) -> None:
    """Any client can interrupt running code, and the kernel stays."""
    await run(session, "kept = 5")
    async with session.code.stream("print('on')\nwhile True: pass", "python", 60) as stream:
        events = []
        async for event in stream:
            events.append(event)
            if isinstance(event, CodeStdout):
                assert await stream.interrupt()
    assert any(isinstance(event, CodeFailed) for event in events)
    assert stream.result.error_message == "KeyboardInterrupt"
    assert not await session.code.interrupt()
    assert (await run(session, "kept")).result == "5"


async def test_leaving_a_stream_interrupts_the_code(session: AsyncSession) -> None:
    """Leaving the stream's block interrupts its code."""
    async with session.code.stream("count = 0\nprint('on')\nwhile True: count += 1", "python", 60) as stream:
        async for event in stream:
            if isinstance(event, CodeStdout):
                break
    with pytest.raises(CodeError):
        _ = stream.result
    assert (await run(session, "count")).result == (await run(session, "count")).result


async def test_large_image_in_a_stream(session: AsyncSession) -> None:
    """An image of several megabytes arrives whole."""
    code = "from IPython.display import Image\nImage(data=b'\\x89PNG\\r\\n' + bytes(3 << 20), format='png')"
    async with session.code.stream(code, "python", 60) as stream:
        shown = [event.result async for event in stream if isinstance(event, CodeShown)]
    assert len(base64.b64decode(shown[0].png or "")) > 3 * MIB


@pytest.mark.slow
async def test_published_client(bay: AsyncAgentBay, official: str, tmp_path: Path) -> None:
    """The published client runs code, streams it, and understands failures."""
    await bay.list()  # begins the runtime
    arguments = [official, str(PROGRAM), bay.client.settings.url, bay.api_key]
    done = await async_run_blocking(
        subprocess.run, arguments, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["ok"]
